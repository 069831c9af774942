"""Reads every topic of the broker back, byte by byte, and writes one file for each into DIRECTORY.

A topic named after a compression must hold batches of it.

Usage: read.py BROKER LOG_DIRECTORY DIRECTORY COUNT
"""

import base64
import json
import pathlib
import sys

from confluent_kafka import Consumer, TopicPartition

BROKER, LOGS, TARGET, COUNT = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4])
COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]


def base64_of(data):
    return None if data is None else base64.b64encode(data).decode("ascii")


def read(consumer, topic):
    consumer.assign([TopicPartition(topic, 0, 0)])
    records = []
    while len(records) < COUNT:
        message = consumer.poll(30)
        if message is None or message.error():
            sys.exit(f"{topic}: {len(records)} records instead of {COUNT}: {message and message.error()}")
        records.append(
            {
                "topic": message.topic(),
                "partition": message.partition(),
                "offset": message.offset(),
                "timestampMs": message.timestamp()[1],
                "keyBase64": base64_of(message.key()),
                "headers": [[name, base64_of(value)] for name, value in message.headers() or []],
                "valueBase64": base64_of(message.value()),
            }
        )
    return records


def compression(topic):
    """The compression of the first batch: the last three bits of its attributes."""
    segment = (LOGS / f"{topic}-0" / "00000000000000000000.log").read_bytes()
    return COMPRESSIONS[segment[22] & 7]


def main():
    settings = {"bootstrap.servers": BROKER, "group.id": "reader", "enable.auto.commit": False}
    consumer = Consumer(settings)
    topics = sorted(topic for topic in consumer.list_topics(timeout=30).topics if not topic.startswith("__"))
    for topic in topics:
        records = read(consumer, topic)
        wanted = topic.removeprefix("java-")
        if wanted in COMPRESSIONS and compression(topic) != wanted:
            sys.exit(f"{topic}: compressed with {compression(topic)}")
        text = json.dumps(records, indent=2) + "\n"
        (TARGET / f"{topic}.json").write_text(text, encoding="ascii")
    print(f"{len(topics)} producers: {' '.join(topics)}")


main()
