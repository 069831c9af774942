//! The settings of clients and of a group's members, in librdkafka's own names: what the gateway needs, below what the
//! user sets.

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

/// The settings that every client of the process begins with: where the cluster is, and the user's own
/// properties on top of ours.
pub fn connection_config(brokers: &str, properties: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config.set("client.id", "sightline");
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Critical);
    config
}

/// The settings of a client that fetches the records of dead letters again, by offset. It needs a group id to
/// assign itself a partition, but never joins the group.
pub fn dead_letters_config(mut connection: ClientConfig, group_prefix: &str) -> ClientConfig {
    connection.set("group.id", format!("{group_prefix}.dead-letters"));
    connection
}

/// The settings of a consumer group's member: the connection's, and what projection needs. The user's own properties win,
/// but for the group's name and the debug contexts.
pub fn member_config(connection: &ClientConfig, group: &str) -> ClientConfig {
    // A copy, because `config_map` masks the values of secrets.
    let mut config = connection.clone();
    let mut set = |name, value| {
        if connection.get(name).is_none() {
            config.set(name, value);
        }
    };
    for (name, value) in [
        ("enable.auto.commit", "true"),
        // Committed offsets show how far the log was projected, should the database be restored to an earlier state.
        ("auto.commit.interval.ms", "1000"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        // A position outside of the log is a loss that an operator has to resolve, never a silent jump.
        ("auto.offset.reset", "error"),
        ("allow.auto.create.topics", "false"),
        ("fetch.queue.backoff.ms", "5"),
        ("queued.max.messages.kbytes", "16384"),
        // How soon an added partition is assigned.
        ("topic.metadata.refresh.interval.ms", "10000"),
    ] {
        set(name, value);
    }
    // `consumer::LogChange` is parsed from these contexts' lines.
    let mut debug = "metadata,topic".to_owned();
    if let Some(more) = connection.get("debug") {
        debug.push_str(&format!(",{more}"));
    }
    // These two belong to the classic protocol. KIP-848 leaves them to the broker and refuses them here.
    if connection.get("group.protocol") != Some("consumer") {
        set("partition.assignment.strategy", "cooperative-sticky");
        set("session.timeout.ms", "10000");
    }
    config.set("group.id", group);
    config.set("debug", debug);
    config.set_log_level(RDKafkaLogLevel::Debug);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_logs_in_with_the_users_password() {
        let given = [
            ("sasl.password", "secret"),
            ("session.timeout.ms", "6000"),
            ("debug", "broker"),
            ("group.id", "another"),
        ];
        let properties = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let connection = connection_config("localhost:9092", &properties);
        let config = member_config(&connection, "sightline.order");
        for (name, value) in [
            ("bootstrap.servers", "localhost:9092"),
            ("sasl.password", "secret"),
            ("session.timeout.ms", "6000"),
            ("auto.offset.reset", "error"),
            ("debug", "metadata,topic,broker"),
            ("group.id", "sightline.order"),
        ] {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
    }
}
