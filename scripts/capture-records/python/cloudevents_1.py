"""Publishes the events with version 1 of the CloudEvents SDK for Python.

Usage: cloudevents_1.py BROKER EVENTS
"""

import json

from cloudevents.http import CloudEvent
from cloudevents.kafka import to_binary, to_structured

from common import events_of, publish


def cloud_event(event, data):
    attributes = {
        "id": event["id"],
        "type": f"com.example.user.{event['type']}.v1",
        "time": event["time"],
        "source": event["source"],
        "subject": event["payload"]["userId"],
        "datacontenttype": "application/json",
        "correlationid": event["correlationId"],
        "partitionkey": event["key"],
    }
    return CloudEvent(attributes, data)


def messages(topic, write, data):
    for event in events_of(topic):
        message = write(cloud_event(event, data(event["payload"])))
        yield message.key, message.value, list(message.headers.items())


def as_object(payload):
    return payload


def as_bytes(payload):
    return json.dumps(payload, ensure_ascii=False).encode()


for name, write, data in [
    ("cloudevents-python-1-structured", to_structured, as_object),
    # Without a marshaller of its own the SDK passes bytes on, and writes them as data_base64.
    ("cloudevents-python-1-structured-bytes", to_structured, as_bytes),
    ("cloudevents-python-1-binary", to_binary, as_object),
]:
    publish(name, messages(name, write, data))
