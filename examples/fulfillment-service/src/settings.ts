import { Injectable } from "@nestjs/common";

/** What the environment says. */
@Injectable()
export class Settings {
  /** The port of this service; 0 for a free one. */
  readonly port = Number(process.env.PORT ?? 3000);
  /** sightline's gRPC port. */
  readonly sightline = process.env.SIGHTLINE_GRPC ?? "127.0.0.1:50051";
  /** Kafka's brokers, separated by commas. */
  readonly brokers = required("KAFKA_BROKERS").split(",");
  /** The topic of user events. */
  readonly topic = process.env.KAFKA_TOPIC ?? "user.events";
}

function required(name: string): string {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set`);
  }
  return value;
}
