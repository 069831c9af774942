//! The list of domains. All other code iterates over [`ALL`] and names no domain.

pub mod fulfillment;
pub mod order;

use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use crate::projector::Projection;
use crate::query::Reads;

/// A downstream domain: a projection that makes its view, and the two surfaces that answer from it.
pub trait Domain: Projection {
    /// The full name of the gRPC service, for health and reflection.
    fn grpc_service(&self) -> &'static str;

    /// Adds the gRPC service.
    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder);

    /// The REST routes, with their documentation.
    fn rest(&self) -> OpenApiRouter<Reads>;
}

/// Every domain of this release, in the order in which the API's document shows them.
pub static ALL: &[&dyn Domain] = &[&order::Order, &fulfillment::Fulfillment];

/// The names of all domains.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|domain| domain.domain()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// A switch locks `view_version`, then renames the schemas. Postgres locks a statement's tables
    /// in the order in which the statement names them. A read that named another table first could
    /// combine the rows of one version with the positions of another.
    #[test]
    fn reads_name_view_version_first() {
        let domains = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domains");
        for domain in super::names() {
            let mut reads = 0;
            for entry in fs::read_dir(domains.join(domain).join("sql")).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.starts_with("--"));
                let code: Vec<&str> = code.collect();
                let schema = format!("{domain}_live.");
                if let Some((_, table)) = code.join("\n").split_once(&schema) {
                    assert!(table.starts_with("view_version"), "{}", path.display());
                    reads += 1;
                }
            }
            assert!(reads > 0, "{domain} has no statement that reads its view");
        }
    }
}
