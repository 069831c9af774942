//! The list of domains. All other code iterates over [`ALL`] and names no domain.

pub mod analytics;
pub mod audit;
pub mod fulfillment;
pub mod notification;
pub mod order;
pub mod personalization;
pub mod search;

use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgConnection;
use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use crate::config::Config;
use crate::error::Error;
use crate::projector::Projection;
use crate::query::{Answer, Reads};

/// A downstream domain: a projection that makes its view, and the two surfaces that answer from it.
pub trait Domain: Projection {
    /// The full name of the gRPC service, for health and reflection.
    fn grpc_service(&self) -> &'static str;

    /// Adds the gRPC service.
    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder);

    /// The REST routes, with their documentation.
    fn rest(&self) -> OpenApiRouter<Reads>;

    /// Reads what the view holds of a user, on the connection of a snapshot ([`Reads::snapshot`]): a JSON object, or `None`
    /// where the view knows nothing of the user. The id is one that [`check_id`](crate::query::check_id) accepts.
    fn read_user<'r>(
        &self,
        reads: &'r Reads,
        snapshot: &'r mut PgConnection,
        user_id: &'r str,
    ) -> BoxFuture<'r, Result<Answer<Option<Value>>, Error>>;

    /// The domain with the settings of a process, if it has any.
    fn with_settings(&self, _config: &Config) -> Option<&'static dyn Domain> {
        None
    }

    /// What to read first.
    fn first_reads(&self) -> FirstReads;
}

/// What `sightline dev` suggests to read of a domain.
pub struct FirstReads {
    /// A path that finds nobody: it is answered, with 404 or an empty list, once the view is ready.
    pub nobody: &'static str,
    /// A path by REST that finds sample users.
    pub path: &'static str,
    /// A method of the gRPC service, and its message as JSON.
    pub call: [&'static str; 2],
}

/// Every domain of this release, in the order in which the API's document shows them.
pub static ALL: &[&dyn Domain] = &[
    &order::Order,
    &fulfillment::Fulfillment,
    &search::Search,
    &personalization::Personalization,
    &analytics::Analytics,
    &notification::Notification::DEFAULT,
    &audit::Audit::DEFAULT,
];

/// The names of all domains.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|domain| domain.domain()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// A name is a Rust module, a proto package, a Postgres schema, a segment of paths and a part of consumer groups.
    #[test]
    fn a_name_is_one_word() {
        for name in super::names() {
            let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(
                is_word,
                "the domain {name} is not named by lowercase letters alone"
            );
        }
    }

    /// Statements of switches themselves, which hold the lock.
    const OF_SWITCHES: [&str; 2] = ["get_former_chains.sql", "add_former_heads.sql"];

    /// A switch locks `view_version`, then renames the schemas. Postgres locks a statement's tables
    /// in the order in which the statement names them. A read that named another table first could
    /// combine the rows of one version with the positions of another.
    #[test]
    fn reads_name_view_version_first() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let of_domains = super::names().into_iter().map(|domain| {
            let statements = sources.join("domains").join(domain).join("sql");
            (statements, format!("{domain}_live."))
        });
        let of_all = (sources.join("query/sql"), "{domain}_live.".to_owned());
        for (statements, schema) in of_domains.chain([of_all]) {
            // A domain may do with the statements that all share.
            if !statements.exists() {
                continue;
            }
            let mut reads = 0;
            for entry in fs::read_dir(&statements).unwrap() {
                let path = entry.unwrap().path();
                if OF_SWITCHES.iter().any(|name| path.ends_with(name)) {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.starts_with("--"));
                let code: Vec<&str> = code.collect();
                if let Some((_, table)) = code.join("\n").split_once(&schema) {
                    assert!(table.starts_with("view_version"), "{}", path.display());
                    reads += 1;
                }
            }
            assert!(
                reads > 0,
                "no statement in {} reads a view",
                statements.display()
            );
        }
    }
}
