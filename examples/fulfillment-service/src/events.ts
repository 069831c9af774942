import { randomUUID } from "node:crypto";

import { Injectable, type OnApplicationShutdown, type OnModuleInit } from "@nestjs/common";
import kafkajs, { type Producer } from "kafkajs";

import { Settings } from "./settings.js";

/** An address as users enter it. */
export interface EnteredAddress {
  streetLine1: string;
  city: string;
  postalCode: string;
  country: string;
}

/** Publishes events about users. */
@Injectable()
export class Events implements OnModuleInit, OnApplicationShutdown {
  private readonly producer: Producer;

  constructor(private readonly settings: Settings) {
    const kafka = new kafkajs.Kafka({ brokers: settings.brokers, logLevel: kafkajs.logLevel.WARN });
    // Java's partitioner: events of one user have to be in one partition, whoever publishes them.
    this.producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
  }

  onModuleInit(): Promise<void> {
    return this.producer.connect();
  }

  onApplicationShutdown(): Promise<void> {
    return this.producer.disconnect();
  }

  /** Publishes a user's new address, and returns where: `topic/partition@offset`, which is the token of the write. */
  async addAddress(userId: string, addressId: string, address: EnteredAddress): Promise<string> {
    const { topic } = this.settings;
    const now = new Date().toISOString();
    const event = {
      eventId: randomUUID(),
      eventType: "UserAddressAdded",
      eventTimestamp: now,
      payload: {
        userId,
        profileId: userId,
        addressId,
        addressType: "shipping",
        isDefaultShipping: true,
        isDefaultBilling: false,
        country: address.country,
        fullAddress: address,
        addTimestamp: now,
      },
    };
    const messages = [{ key: userId, value: JSON.stringify(event) }];
    const [acknowledged] = await this.producer.send({ topic, messages });
    if (acknowledged?.baseOffset === undefined) {
      throw new Error("Kafka acknowledged the event without its offset");
    }
    return `${topic}/${acknowledged.partition}@${acknowledged.baseOffset}`;
  }
}
