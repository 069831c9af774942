import type { ServiceError } from "@grpc/grpc-js";
import { type ArgumentsHost, Catch } from "@nestjs/common";
import { BaseExceptionFilter } from "@nestjs/core";
import type { Response } from "express";
import protobuf from "protobufjs";

/** What `grpc-status-details-bin` holds, as far as it is read here. */
const { root } = protobuf.parse(`
  syntax = "proto3";
  message Status { repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; }
  message RetryInfo { Duration retry_delay = 1; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
`);

/** A refusal of sightline. */
export interface Refusal {
  /** The stable word to decide by. */
  reason: string;
  detail: string;
  /** When to try again; absent where waiting does not help. */
  retryAfterSeconds?: number;
}

/** How this service answers in place of the gateway. Any other reason is a fault of this service. */
const STATUS: Record<string, number> = {
  INVALID_ARGUMENT: 400, // the caller's token is malformed, or of another cluster
  NOT_FOUND: 404,
  DEAD_LETTERED: 409, // waiting does not help: support has to look at the user's events
  KEY_PARKED: 409,
  PROJECTION_STOPPED: 409,
  PARTITION_WAITS: 409,
  DEADLINE_EXCEEDED: 504, // the view is behind: again, after some time
  VIEW_NOT_READY: 503, // the view is being built, and what is missing may still come
  OVERLOADED: 503,
  DATABASE_UNAVAILABLE: 503,
  UNAVAILABLE: 503,
};

export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

export function refusalOf(error: ServiceError): Refusal {
  const details = new Map<string, protobuf.Message & Record<string, any>>();
  const encoded = error.metadata.get("grpc-status-details-bin")[0];
  if (encoded instanceof Buffer) {
    const status = root.lookupType("Status").decode(encoded) as protobuf.Message & { details: any[] };
    for (const { type_url, typeUrl = type_url, value } of status.details) {
      const name = String(typeUrl).replace(/^.*\./, "");
      const type = root.get(name);
      if (type instanceof protobuf.Type) details.set(name, type.decode(value));
    }
  }
  // Without details it is not the gateway that answers, but a proxy, or grpc-js itself.
  const own = { 4: "DEADLINE_EXCEEDED", 14: "UNAVAILABLE" }[error.code as number] ?? "UNKNOWN";
  const reason: string = details.get("ErrorInfo")?.reason || own;
  const delay = details.get("RetryInfo")?.retryDelay;
  return {
    reason,
    detail: error.details,
    ...(delay && { retryAfterSeconds: Math.ceil(Number(delay.seconds) + delay.nanos / 1e9) }),
  };
}

/** Answers what sightline refuses with the same reason. */
@Catch()
export class RefusalFilter extends BaseExceptionFilter {
  override catch(error: unknown, host: ArgumentsHost): void {
    if (!isServiceError(error)) {
      super.catch(error, host);
      return;
    }
    const { reason, detail, retryAfterSeconds } = refusalOf(error);
    const response = host.switchToHttp().getResponse<Response>();
    if (retryAfterSeconds !== undefined) {
      response.setHeader("Retry-After", retryAfterSeconds);
    }
    const status = STATUS[reason] ?? 502;
    response.status(status).type("application/problem+json").send({ status, reason, detail });
  }
}
