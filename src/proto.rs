//! The code generated from `proto/`, and the descriptors that gRPC reflection serves.

use std::collections::HashSet;
use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

#[allow(missing_docs, clippy::all)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

// One module per package: `order::v1` is `sightline.order.v1`.
pub use packages::sightline::*;

/// The encoded descriptors of all services and their imports, with comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The path of a method in `proto/`, such as `/sightline.order.v1.OrderService/GetCustomer`, if `path` is one. Any other path is
/// the caller's text and must not become a label.
pub fn method(path: &str) -> Option<&'static str> {
    static PATHS: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let mut paths = HashSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let (package, service) = (file.package(), service.name());
                    paths.insert(format!("/{package}.{service}/{}", method.name()));
                }
            }
        }
        paths
    });
    PATHS.get(path).map(String::as_str)
}

#[cfg(test)]
mod tests {
    #[test]
    fn methods_are_known_by_their_path() {
        let path = "/sightline.order.v1.OrderService/GetCustomer";
        assert_eq!(super::method(path), Some(path));
        assert_eq!(super::method("/sightline.order.v1.OrderService/Get"), None);
    }
}
