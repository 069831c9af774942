//! The code generated from `proto/`, and the descriptors that gRPC reflection serves.

#![allow(missing_docs, clippy::all)]

/// The order domain.
pub mod order {
    /// `sightline.order.v1`
    pub mod v1 {
        tonic::include_proto!("sightline.order.v1");
    }
}

/// Lag and consistency of all domains.
pub mod consistency {
    /// `sightline.consistency.v1`
    pub mod v1 {
        tonic::include_proto!("sightline.consistency.v1");
    }
}

/// The encoded descriptors of all services and of what they import, comments included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
