"""Publishes the events with version 2 of the CloudEvents SDK for Python.

Usage: cloudevents_2.py BROKER EVENTS
"""

import datetime
import json

from cloudevents.core.bindings.kafka import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from common import events_of, publish


def cloud_event(event, data):
    attributes = {
        "id": event["id"],
        "type": f"com.example.user.{event['type']}.v1",
        "time": datetime.datetime.fromisoformat(event["time"]),
        "source": event["source"],
        "specversion": "1.0",
        "subject": event["payload"]["userId"],
        "datacontenttype": "application/json",
        "correlationid": event["correlationId"],
        "partitionkey": event["key"],
    }
    return CloudEvent(attributes, data)


def messages(topic, write, data):
    for event in events_of(topic):
        message = write(cloud_event(event, data(event["payload"])), JSONFormat())
        yield message.key, message.value, list(message.headers.items())


def as_object(payload):
    return payload


def as_bytes(payload):
    return json.dumps(payload, ensure_ascii=False).encode()


for name, write, data in [
    ("cloudevents-python-2-structured", to_structured, as_object),
    ("cloudevents-python-2-structured-bytes", to_structured, as_bytes),
    ("cloudevents-python-2-binary", to_binary, as_object),
]:
    publish(name, messages(name, write, data))
