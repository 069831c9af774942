//! Postgres for the tests.
//!
//! `SIGHTLINE_TEST_DATABASE_URL` names a server and a superuser; otherwise the tests start one, like `sightline dev`. All tests
//! share the server and use databases of their own; a test that kills its server starts a private one.
//! `SIGHTLINE_TEST_POOLER_URL` names a pooler in front of that server, through which the program then reads.

use sightline_postgres::{Options, Postgres, ServerCertificate};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Transaction};
use tokio::sync::{Mutex, OnceCell};

use super::unique;

/// An empty database.
pub struct Database {
    pub url: String,
    server: Option<Mutex<Postgres>>,
}

impl Database {
    /// Creates a database in the server that all tests share.
    pub async fn create() -> Database {
        Self::create_with("").await
    }

    /// Creates a database with these options of CREATE DATABASE in the server that all tests share.
    pub async fn create_with(options: &str) -> Database {
        if let Ok(url) = std::env::var("SIGHTLINE_TEST_DATABASE_URL") {
            let name = create(&url, options).await;
            return Database {
                url: with_database(&url, &name),
                server: None,
            };
        }
        // Statics are not dropped; the server ends with this process.
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        let server = SHARED.get_or_init(|| start(None)).await;
        let name = create(&server.url(), options).await;
        Database {
            url: server.database_url(&name),
            server: None,
        }
    }

    /// Where the program reads: through the pooler, where there is one in front of the server.
    pub fn pooled_url(&self) -> String {
        match std::env::var("SIGHTLINE_TEST_POOLER_URL") {
            Ok(pooler) if self.server.is_none() => {
                let options: PgConnectOptions = self.url.parse().expect("a URL of Postgres");
                with_database(&pooler, options.get_database().expect("a database"))
            }
            _ => self.url.clone(),
        }
    }

    /// Holds up a partition of a domain's view: a transaction that has locked the progress rows of the partition, in all
    /// versions, until it is rolled back.
    pub async fn lock_progress(
        &self,
        domain: &str,
        partition: i32,
    ) -> Transaction<'static, sqlx::Postgres> {
        let pool = PgPool::connect(&self.url).await.expect("the database");
        let mut locked = pool.begin().await.expect("a transaction");
        sqlx::query(
            "SELECT FROM sightline.progress JOIN sightline.logs USING (log_id)
             WHERE domain = $1 AND partition = $2 FOR UPDATE OF progress",
        )
        .bind(domain)
        .bind(partition)
        .execute(&mut *locked)
        .await
        .expect("locked");
        locked
    }

    /// A database in a private server, which the test may kill.
    pub async fn private() -> Database {
        Self::of_private(start(None).await)
    }

    /// A database in a private server that accepts TLS with this certificate.
    pub async fn with_tls(certificate: ServerCertificate) -> Database {
        Self::of_private(start(Some(certificate)).await)
    }

    /// A database in a private server, and the same in a hot standby that streams from it.
    pub async fn with_standby() -> (Database, Database) {
        let mut server = start(None).await;
        let standby = server.standby().await.expect("a standby starts");
        (Self::of_private(server), Self::of_private(standby))
    }

    fn of_private(server: Postgres) -> Database {
        Database {
            url: server.url(),
            server: Some(Mutex::new(server)),
        }
    }

    /// Creates a role with the rights on this database that `granted` lists, and no others: `PUBLIC` has none
    /// from then on. Returns its name and the URL with which it connects.
    pub async fn create_role(&self, granted: &str) -> (String, String) {
        let (role, name) = (unique("role"), self.name());
        let mut server = PgConnection::connect(&self.url).await.expect("it answers");
        for statement in [
            format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"),
            format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
            "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
            format!("GRANT {granted} ON DATABASE {name} TO {role}"),
        ] {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut server)
                .await
                .expect("the superuser may do this");
        }
        let (_, host) = self.url.rsplit_once('@').expect("a URL with a password");
        let url = format!("postgres://{role}:secret@{host}");
        (role, url)
    }

    /// Another handle to the same database, without control of the server.
    pub fn of(database: &Database) -> Database {
        Database {
            url: database.url.clone(),
            server: None,
        }
    }

    /// Copies the database. Fails while other connections to it are open.
    pub async fn back_up(&mut self) {
        let name = self.name();
        let statement = format!("CREATE DATABASE {name}_backup TEMPLATE {name}");
        self.execute_outside(&[statement]).await;
    }

    /// Replaces the database by the copy and ends its connections.
    pub async fn restore(&mut self) {
        let name = self.name();
        self.execute_outside(&[
            format!("DROP DATABASE {name} WITH (FORCE)"),
            format!("ALTER DATABASE {name}_backup RENAME TO {name}"),
        ])
        .await;
    }

    /// The database's name.
    pub fn name(&self) -> String {
        let base = self.url.split('?').next().unwrap_or_default();
        let (_, name) = base.rsplit_once('/').expect("a URL with a database");
        name.to_owned()
    }

    /// Runs statements while connected to another database of the server.
    async fn execute_outside(&self, statements: &[String]) {
        let mut server = PgConnection::connect(&with_database(&self.url, "postgres"))
            .await
            .expect("a connection to the test server");
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut server)
                .await
                .expect("the superuser may do this");
        }
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        let (_, after) = self.url.rsplit_once('@').expect("a URL with a password");
        let digits = after
            .split(['/', '?'])
            .next()
            .and_then(|host| host.rsplit(':').next());
        digits.and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The URL of the same database through another local port.
    pub fn url_through(&self, port: u16) -> String {
        let here = format!(":{}/", self.port());
        self.url.replacen(&here, &format!(":{port}/"), 1)
    }

    /// Kills the server with SIGKILL.
    pub async fn kill(&self) {
        self.server().lock().await.kill();
    }

    /// Starts the server again, with the same port and data, and waits until it answers.
    pub async fn start(&self) {
        self.server()
            .lock()
            .await
            .start_again()
            .await
            .expect("Postgres starts");
    }

    fn server(&self) -> &Mutex<Postgres> {
        self.server
            .as_ref()
            .expect("only a private server can be killed")
    }
}

async fn start(certificate: Option<ServerCertificate>) -> Postgres {
    // Each test runs one to three processes, each with its pools.
    let settings = [("max_connections", "500"), ("full_page_writes", "off")];
    let settings = settings
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    Postgres::start(Options {
        settings,
        certificate,
        ..Options::default()
    })
    .await
    .expect("Postgres starts")
}

async fn create(server: &str, options: &str) -> String {
    let name = unique("test");
    let mut connection = PgConnection::connect(server)
        .await
        .expect("a connection to the test server");
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name} {options}")))
        .execute(&mut connection)
        .await
        .expect("a superuser may create databases");
    name
}

/// The URL with its path, the database, replaced.
fn with_database(url: &str, name: &str) -> String {
    let (base, options) = url
        .split_once('?')
        .map_or((url, String::new()), |(b, o)| (b, format!("?{o}")));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..]
        .find('/')
        .map_or(base.len(), |at| authority + at);
    format!("{}/{name}{options}", &base[..end])
}
