//! The domains: what each is, told once. Everything else walks [`ALL`].

pub mod fulfillment;
pub mod order;

use tonic::service::RoutesBuilder;
use utoipa_axum::router::OpenApiRouter;

use crate::projector::Projection;
use crate::query::Reads;

/// A downstream domain: a projection that makes its view, and two coats over the queries that read it.
pub trait Domain: Projection {
    /// The gRPC service, as health and reflection name it.
    fn grpc_service(&self) -> &'static str;

    /// Adds the gRPC service.
    fn add_grpc(&self, reads: Reads, routes: &mut RoutesBuilder);

    /// The REST routes, with their documentation.
    fn rest(&self) -> OpenApiRouter<Reads>;
}

/// Every domain that this release knows.
pub static ALL: &[&dyn Domain] = &[&fulfillment::Fulfillment, &order::Order];

/// The names of all domains.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|domain| domain.domain()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// A switch locks `view_version` before it renames schemas, and a statement's tables are looked up in the order in
    /// which it names them: one that names another table first could find the rows of one version, and the positions of
    /// the other.
    #[test]
    fn reads_name_the_version_of_the_view_first() {
        let domains = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domains");
        for domain in super::names() {
            let mut read = 0;
            for entry in fs::read_dir(domains.join(domain).join("sql")).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                let code = text.lines().filter(|line| !line.starts_with("--"));
                let code: Vec<&str> = code.collect();
                let schema = format!("{domain}_live.");
                if let Some((_, table)) = code.join("\n").split_once(&schema) {
                    assert!(table.starts_with("view_version"), "{}", path.display());
                    read += 1;
                }
            }
            assert!(read > 0, "{domain} reads nothing");
        }
    }
}
