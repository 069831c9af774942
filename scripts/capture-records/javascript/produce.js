// Publishes the events with kafkajs, with NestJS's Kafka client, and with the CloudEvents SDK for JavaScript.
// Usage: node produce.js BROKER EVENTS

import 'reflect-metadata';
import { readFileSync } from 'node:fs';
import { ClientKafka } from '@nestjs/microservices';
import { CloudEvent, Kafka as KafkaBinding } from 'cloudevents';
import kafkajs from 'kafkajs';
import { lastValueFrom } from 'rxjs';

const [broker, file] = process.argv.slice(2);
const template = readFileSync(file, 'utf8');
const eventsOf = (producer) => JSON.parse(template.replaceAll('PRODUCER', producer));
const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

const client = new kafkajs.Kafka({ clientId: 'user-service', brokers: [broker] });
const modes = ['structured', 'structured-bytes', 'binary', 'binary-bytes'];
const cloudEventsTopics = modes.map((mode) => `cloudevents-js-${mode}`);
const topics = ['kafkajs', 'nestjs-message', 'nestjs-object', ...cloudEventsTopics];
const admin = client.admin();
await admin.connect();
await admin.createTopics({ topics: topics.map((topic) => ({ topic })), waitForLeaders: true });
await admin.disconnect();
const producer = client.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
await producer.connect();
const send = (topic, messages) => producer.send({ topic, messages });

// kafkajs, with the event envelope.
const envelope = (event) => ({
  eventId: event.id,
  eventType: `${event.type}EventV1`,
  eventTimestamp: event.time,
  sourceService: event.source,
  correlationId: event.correlationId,
  version: '1.0',
  payload: event.payload,
});
await send(
  'kafkajs',
  eventsOf('kafkajs').map((event) => ({
    key: event.key,
    value: JSON.stringify(envelope(event)),
    headers: { traceparent },
  })),
);

// NestJS, with `StandardMessage` as the value of a message, and with an event envelope as the whole message.
const nest = new ClientKafka({ client: { clientId: 'user-service', brokers: [broker] }, producerOnlyMode: true });
await nest.connect();
for (const event of eventsOf('nestjs-message')) {
  const value = {
    messageId: event.id,
    messageType: `${event.type}.v1`,
    timestamp: event.time,
    sourceService: event.source,
    correlationId: event.correlationId,
    envelopeVersion: '1.0',
    partitionKey: event.key,
    payload: event.payload,
  };
  await lastValueFrom(nest.emit('nestjs-message', { key: event.key, value, headers: { traceparent } }));
}
for (const event of eventsOf('nestjs-object')) {
  await lastValueFrom(nest.emit('nestjs-object', envelope(event)));
}
await nest.close();

// CloudEvents. In binary mode the SDK returns objects and undefined headers as they are; kafkajs takes neither.
const cloudEvents = (producer, data) =>
  eventsOf(producer).map(
    (event) =>
      new CloudEvent({
        id: event.id,
        type: `com.example.user.${event.type}.v1`,
        time: event.time,
        source: event.source,
        subject: event.payload.userId,
        datacontenttype: 'application/json',
        correlationid: event.correlationId,
        partitionkey: event.key,
        data: data(event.payload),
      }),
  );
const asObject = (payload) => payload;
const asBytes = (payload) => new Uint8Array(Buffer.from(JSON.stringify(payload)));
const message = ({ key, value, headers, timestamp }) => ({
  key,
  value: typeof value === 'string' || value instanceof Uint8Array ? Buffer.from(value) : JSON.stringify(value),
  headers: Object.fromEntries(Object.entries(headers).filter(([, header]) => header !== undefined)),
  timestamp,
});
for (const topic of cloudEventsTopics) {
  const write = topic.includes('binary') ? KafkaBinding.binary : KafkaBinding.structured;
  const data = topic.endsWith('bytes') ? asBytes : asObject;
  await send(topic, cloudEvents(topic, data).map((event) => message(write(event))));
}
await producer.disconnect();
