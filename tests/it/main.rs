//! Integration tests. They use the public surface only (the binary, REST, gRPC, Kafka and settings). There is one
//! test binary, with one file per concern. Tests run in parallel, each with its own topic, consumer group and
//! database; they wait for conditions with deadlines, and are never retried.

mod added_partitions;
mod address_requests;
mod address_spellings;
mod analytics;
mod answers;
mod as_of;
mod captured_records;
mod chaos;
mod claims;
mod clocks;
mod code_versions;
mod crashes;
mod data_loss;
mod database;
mod dead_letters;
mod documented;
mod end_to_end;
mod erasure;
mod feed;
mod former_releases;
mod full_buffers;
mod heartbeats;
mod holes;
mod hung_broker;
mod layers;
mod notification;
mod notification_queue;
mod openapi;
mod personalization;
mod printing;
mod read_only;
mod rebuilds;
mod reference_fold;
mod refusals;
mod remembered_ids;
mod requests;
mod response_sizes;
mod search;
mod several_topics;
mod slow_records;
mod starting;
mod statements;
mod test_servers;
mod vanished_server;
