//! `make sqlx`: migrates an empty Postgres, lets the compiler check every query of sightline against it, and keeps
//! what it learnt in a directory, so that everybody else builds without a database.
//!
//! A program of its own, because sightline does not compile while that directory lacks a query. Arguments: the
//! directory, then further arguments for `cargo check`. `DATABASE_URL` names a server where the private one is not
//! wanted; a database is made in it and dropped again.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, bail};
use sightline_postgres::{Options, Postgres};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("which directory?")?;
    let directory = std::path::absolute(directory)?;

    match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => {
            let name = format!("sightline_prepare_{}", uuid::Uuid::now_v7().simple());
            let mut server = PgConnection::connect(&url).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
                .execute(&mut server)
                .await?;
            let (base, query) = url.split_once('?').unwrap_or((&url, ""));
            let (base, _) = base
                .rsplit_once('/')
                .context("DATABASE_URL names no database")?;
            let result = prepare(&format!("{base}/{name}?{query}"), &directory, arguments).await;
            sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE {name}")))
                .execute(&mut server)
                .await?;
            result
        }
        _ => {
            let server = Postgres::start(Options::default()).await?;
            let result = prepare(&format!("{}?", server.url()), &directory, arguments).await;
            server.stop().await;
            result
        }
    }
}

async fn prepare(
    url: &str,
    directory: &Path,
    arguments: impl Iterator<Item = String>,
) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    Migrator::new(Path::new("migrations"))
        .await?
        .run(&mut connection)
        .await?;
    // Projections name no schema: they find their tables in the live version of their domain's view.
    let live: Vec<String> = sqlx::query_scalar(
        r"SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '%\_live' ORDER BY 1",
    )
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    let url = format!(
        "{url}&options=-c%20search_path%3D{}",
        [live, vec!["public".to_owned()]].concat().join("%2C")
    );

    std::fs::create_dir_all(directory)?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            std::fs::remove_file(path)?;
        }
    }
    // The compiler does not know that the macros asked a database: it must be made to ask again.
    std::fs::File::open("src/lib.rs")?.set_modified(SystemTime::now())?;
    let mut check = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    // What cargo says of this program to this program: build scripts would take it for a change, and run again.
    for (name, _) in std::env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if ours
            .iter()
            .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        {
            check.env_remove(name);
        }
    }
    let status = check
        .args(["check", "--package", "sightline", "--all-targets"])
        .args(arguments)
        .env("DATABASE_URL", url)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", directory)
        .status()?;
    if !status.success() {
        bail!("the SQL or the code is wrong: see above");
    }
    let count = std::fs::read_dir(directory)?.count();
    println!("{count} queries checked, in {}", directory.display());
    Ok(())
}
