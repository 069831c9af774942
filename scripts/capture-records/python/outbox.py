"""Prints what Kafka Connect needs: the connectors' settings, or the SQL that makes the outbox tables or fills them.

Every connector reads an outbox table of its own, because the payload's column type and the converters differ.

Usage: outbox.py connectors DIRECTORY POSTGRES_PORT EVENTS | outbox.py tables | outbox.py rows EVENTS
"""

import json
import pathlib
import sys

JSON = "org.apache.kafka.connect.json.JsonConverter"
STRING = "org.apache.kafka.connect.storage.StringConverter"
BINARY = "io.debezium.converters.BinaryDataConverter"
TYPE_HEADER = {"transforms.outbox.table.fields.additional.placement": "type:header:eventType"}
EXPAND = {"transforms.outbox.table.expand.json.payload": "true"}
KEEP_NULLS = {"transforms.outbox.table.json.payload.null.behavior": "optional_bytes"}


def converter(name, schemas=None):
    settings = {"key.converter": STRING if name == BINARY else name, "value.converter": name}
    if schemas is not None:
        for part in ("key", "value"):
            settings[f"{part}.converter.schemas.enable"] = schemas
    return settings


# Name: the type of the column `payload`, what it holds, settings of the connector.
OUTBOXES = {
    # The set-up that Debezium documents, with the event type in a header.
    "debezium-outbox": ("jsonb", "payload", {**TYPE_HEADER, **converter(STRING)}),
    "debezium-outbox-binary": ("bytea", "payload", {**TYPE_HEADER, **converter(BINARY)}),
    # Connect's JSON converter makes the text a JSON string; its default adds the schema.
    "debezium-outbox-json": ("jsonb", "payload", {**TYPE_HEADER, **converter(JSON, "false")}),
    "debezium-outbox-json-schemas": ("jsonb", "payload", {**TYPE_HEADER, **converter(JSON)}),
    # The router parses the payload; by default it drops what is null.
    "debezium-outbox-expand": ("jsonb", "payload", {**TYPE_HEADER, **EXPAND, **converter(JSON, "false")}),
    "debezium-outbox-expand-nulls": (
        "jsonb",
        "payload",
        {**TYPE_HEADER, **EXPAND, **KEEP_NULLS, **converter(JSON, "false")},
    ),
    "debezium-outbox-expand-schemas": ("jsonb", "payload", {**TYPE_HEADER, **EXPAND, **converter(JSON)}),
    # The router's defaults, which have no header with the type: the payload is the event envelope.
    "debezium-outbox-envelope": ("jsonb", "envelope", converter(STRING)),
    "debezium-outbox-envelope-schemas": ("jsonb", "envelope", {**EXPAND, **converter(JSON)}),
}


def table(name):
    return name.replace("-", "_")


def events_of(name, file):
    return json.loads(pathlib.Path(file).read_text(encoding="utf-8").replace("PRODUCER", name))


def envelope(event):
    return {
        "eventId": event["id"],
        "eventType": f"{event['type']}Event",
        "eventTimestamp": event["time"],
        "sourceService": event["source"],
        "correlationId": event["correlationId"],
        "version": "1.0",
        "payload": event["payload"],
    }


def connectors(directory, port, file):
    directory = pathlib.Path(directory)
    for name, (_, _, settings) in OUTBOXES.items():
        settings = {
            "name": name,
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": "127.0.0.1",
            "database.port": port,
            "database.user": "postgres",
            "database.password": "none",
            "database.dbname": "postgres",
            "plugin.name": "pgoutput",
            "slot.name": table(name),
            "publication.name": table(name),
            "publication.autocreate.mode": "filtered",
            "table.include.list": f"public.{table(name)}",
            "topic.prefix": name,
            "snapshot.mode": "no_data",
            "transforms": "outbox",
            "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
            "transforms.outbox.route.topic.replacement": name,
            **settings,
        }
        write(directory / f"{name}.properties", settings)
    # Connect's own file source: a line of the file is a record.
    lines = directory / "lines.json"
    name = "connect-file-schemas"
    with lines.open("w", encoding="utf-8") as out:
        for event in events_of(name, file):
            out.write(json.dumps(envelope(event), ensure_ascii=False) + "\n")
    source = {
        "name": name,
        "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "file": lines,
        "topic": name,
    }
    write(directory / f"{name}.properties", source)


def write(path, settings):
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")


def tables():
    for name, (column, _, _) in OUTBOXES.items():
        print(
            f"CREATE TABLE {table(name)} (id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL,"
            f" aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload {column});"
        )


def rows(file):
    for name, (column, content, _) in OUTBOXES.items():
        for event in events_of(name, file):
            value = event["payload"] if content == "payload" else envelope(event)
            text = json.dumps(value, ensure_ascii=False).replace("'", "''")
            value = f"convert_to('{text}', 'UTF8')" if column == "bytea" else f"'{text}'"
            print(
                f"INSERT INTO {table(name)} VALUES"
                f" ('{event['id']}', 'user', '{event['key']}', '{event['type']}', {value});"
            )


if __name__ == "__main__":
    {"connectors": connectors, "tables": tables, "rows": rows}[sys.argv[1]](*sys.argv[2:])
