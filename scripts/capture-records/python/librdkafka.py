"""Publishes the events with librdkafka (confluent-kafka): plain, and through Confluent's JSON Schema serializer.

The serializer's registry is the one in memory that confluent-kafka has for tests. The serializer puts a zero byte and
the schema's id before the JSON, or names the schema in a header.

Usage: librdkafka.py BROKER EVENTS
"""

import json

from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from common import envelope, events_of, publish

SCHEMA = json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "title": "UserEvent", "type": "object"})


def plain(topic):
    """Python escapes what is not ASCII: emoji become pairs of surrogate escapes."""
    for event in events_of(topic):
        yield event["key"], json.dumps(envelope(event)), [("correlationId", event["correlationId"].encode())]


def with_schema(topic, configuration):
    registry = SchemaRegistryClient.new_client({"url": "mock://records"})
    serializer = JSONSerializer(SCHEMA, registry, conf=configuration)
    for event in events_of(topic):
        headers = [("correlationId", event["correlationId"].encode())]
        context = SerializationContext(topic, MessageField.VALUE, headers)
        value = serializer(envelope(event), context)
        yield event["key"], value, context.headers


publish("librdkafka", plain("librdkafka"))
publish("librdkafka-json-schema", with_schema("librdkafka-json-schema", {}))
publish(
    "librdkafka-json-schema-header",
    with_schema("librdkafka-json-schema-header", {"schema.id.serializer": header_schema_id_serializer}),
)
