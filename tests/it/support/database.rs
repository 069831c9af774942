//! Postgres for the tests: a real one.
//!
//! `SIGHTLINE_TEST_DATABASE_URL` names a server (as a superuser); else one is got and started, the way
//! `sightline dev` does it. All tests share the server, each has a database of its own in it; a test that stops or
//! kills its server starts a private one.

use super::unique;
use sightline::dev::postgres::{Options, Postgres};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::{Mutex, OnceCell};

/// An empty database.
pub struct Database {
    pub url: String,
    server: Option<Mutex<Postgres>>,
}

impl Database {
    /// A new database in the server that all tests share.
    pub async fn create() -> Database {
        if let Ok(url) = std::env::var("SIGHTLINE_TEST_DATABASE_URL") {
            let name = create(&url).await;
            return Database {
                url: with_database(&url, &name),
                server: None,
            };
        }
        // Nobody drops it: it goes with this process.
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        let server = SHARED.get_or_init(start).await;
        let name = create(&server.url()).await;
        Database {
            url: server.database_url(&name),
            server: None,
        }
    }

    /// A database in a server of its own, which the test may take down.
    pub async fn private() -> Database {
        let server = start().await;
        Database {
            url: server.url(),
            server: Some(Mutex::new(server)),
        }
    }

    /// The same database for somebody else.
    pub fn of(database: &Database) -> Database {
        Database {
            url: database.url.clone(),
            server: None,
        }
    }

    /// Keeps its present state, which nobody may be connected to.
    pub async fn back_up(&mut self) {
        let name = self.name();
        let statement = format!("CREATE DATABASE {name}_backup TEMPLATE {name}");
        self.beside(&[statement]).await;
    }

    /// Puts the state that was kept in the place of the present one. Who is connected is thrown out.
    pub async fn restore(&mut self) {
        let name = self.name();
        self.beside(&[
            format!("DROP DATABASE {name} WITH (FORCE)"),
            format!("ALTER DATABASE {name}_backup RENAME TO {name}"),
        ])
        .await;
    }

    fn name(&self) -> String {
        let base = self.url.split('?').next().unwrap_or_default();
        let (_, name) = base.rsplit_once('/').expect("a URL with a database");
        name.to_owned()
    }

    /// Runs statements in another database of the server.
    async fn beside(&self, statements: &[String]) {
        let mut server = PgConnection::connect(&with_database(&self.url, "postgres"))
            .await
            .expect("a connection to the test server");
        for statement in statements {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut server)
                .await
                .expect("a superuser may");
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

    /// The URL of the same database through another port of this machine.
    pub fn url_through(&self, port: u16) -> String {
        let here = format!(":{}/", self.port());
        self.url.replacen(&here, &format!(":{port}/"), 1)
    }

    /// SIGKILL to the server, at once.
    pub async fn kill(&self) {
        self.server().lock().await.kill();
    }

    /// Starts the server again, on the same port and data, and waits until it answers.
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
            .expect("only a private server can be taken down")
    }
}

async fn start() -> Postgres {
    // Every test has a program or three with their pools.
    let settings = [("max_connections", "500"), ("full_page_writes", "off")];
    let settings = settings
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    Postgres::start(Options {
        settings,
        ..Options::default()
    })
    .await
    .expect("Postgres starts")
}

async fn create(server: &str) -> String {
    let name = unique("test");
    let mut connection = PgConnection::connect(server)
        .await
        .expect("a connection to the test server");
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .expect("a superuser may create databases");
    name
}

/// The URL with another database: its path.
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
