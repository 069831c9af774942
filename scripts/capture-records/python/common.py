"""The events, and a producer of librdkafka that writes them."""

import json
import pathlib
import sys

from confluent_kafka import Producer

BROKER = sys.argv[1]
TEMPLATE = pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")


def events_of(producer):
    """The events, with ids of their own for this producer."""
    return json.loads(TEMPLATE.replace("PRODUCER", producer))


def publish(topic, messages):
    """Writes (key, value, headers) in order."""

    def delivered(error, _):
        if error is not None:
            sys.exit(f"{topic}: {error}")

    producer = Producer({"bootstrap.servers": BROKER, "client.id": "user-service", "enable.idempotence": True})
    for key, value, headers in messages:
        producer.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
    if producer.flush(30):
        sys.exit(f"{topic}: not delivered")


def envelope(event):
    """The event envelope."""
    return {
        "eventId": event["id"],
        "eventType": f"{event['type']}Event",
        "timestamp": event["time"],
        "source": event["source"],
        "version": "1.0",
        "data": event["payload"],
    }
