//! The code generated from `proto/`, and the descriptors that gRPC reflection serves.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;

#[allow(missing_docs, clippy::all)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

// One module per package: `order::v1` is `sightline.order.v1`.
pub use packages::sightline::*;

/// The encoded descriptors of all services and their imports, with comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A method in `proto/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Its path, such as `/sightline.order.v1.OrderService/GetCustomer`.
    pub path: &'static str,
    /// Whether it answers once from a domain's view: the proto says that it has no side effects.
    pub reads: bool,
    /// Whether its answer is a stream.
    pub streams: bool,
}

/// The method of a path, if it is one in `proto/`. Any other path is the caller's text and must not become a label.
pub fn method(path: &str) -> Option<Method> {
    static METHODS: LazyLock<HashMap<String, (bool, bool)>> = LazyLock::new(|| {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let mut methods = HashMap::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let (package, service) = (file.package(), service.name());
                    let options = method.options.as_ref();
                    let level = options.map(|options| options.idempotency_level());
                    let streams = method.server_streaming();
                    let reads = level == Some(IdempotencyLevel::NoSideEffects) && !streams;
                    let path = format!("/{package}.{service}/{}", method.name());
                    methods.insert(path, (reads, streams));
                }
            }
        }
        methods
    });
    let (path, &(reads, streams)) = METHODS.get_key_value(path)?;
    Some(Method {
        path,
        reads,
        streams,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn methods_are_known_by_their_path() {
        let path = "/sightline.order.v1.OrderService/GetCustomer";
        let expected = super::Method {
            path,
            reads: true,
            streams: false,
        };
        assert_eq!(super::method(path), Some(expected));
        let watch = "/sightline.order.v1.OrderService/WatchAddressChanges";
        assert!(super::method(watch).is_some_and(|method| method.streams && !method.reads));
        let lease = "/sightline.notification.v1.NotificationService/LeaseNotifications";
        assert!(super::method(lease).is_some_and(|method| !method.reads));
        assert_eq!(super::method("/sightline.order.v1.OrderService/Get"), None);
    }
}
