import { fileURLToPath } from "node:url";

import { type ClientUnaryCall, Metadata, type ServiceError, credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { Injectable, type OnApplicationShutdown } from "@nestjs/common";

import type { ProtoGrpcType } from "./generated/fulfillment.js";
import type { FulfillmentServiceClient } from "./generated/sightline/fulfillment/v1/FulfillmentService.js";
import type { ShippingAddress__Output } from "./generated/sightline/fulfillment/v1/ShippingAddress.js";
import { Settings } from "./settings.js";

export type ShippingAddress = ShippingAddress__Output;

/** A user's addresses, and what the answer says of itself. */
export interface Answer {
  addresses: ShippingAddress[];
  /** The positions that the answer reflects: whoever sends it with a later read gets nothing older. */
  token: string;
  /** Something that happened to the user is missing from the answer. */
  isIncomplete: boolean;
}

/** The same protos and the same options as in package.json, which generates the types. */
const PROTOS = fileURLToPath(new URL("../../../proto", import.meta.url));
const OPTIONS = { longs: Number, enums: String, defaults: true, arrays: true, includeDirs: [PROTOS] };

/** sightline over gRPC. */
@Injectable()
export class Sightline implements OnApplicationShutdown {
  private readonly client: FulfillmentServiceClient;

  constructor({ sightline }: Settings) {
    const definition = loadSync("sightline/fulfillment/v1/fulfillment.proto", OPTIONS);
    const packages = loadPackageDefinition(definition) as unknown as ProtoGrpcType;
    const { FulfillmentService } = packages.sightline.fulfillment.v1;
    this.client = new FulfillmentService(sightline, credentials.createInsecure());
  }

  onApplicationShutdown(): void {
    this.client.close();
  }

  /**
   * A user's addresses, not older than the token, for which the gateway waits up to `waitSeconds`; without a token as they are
   * now. Rejects with a `ServiceError`.
   */
  addresses(userId: string, token: string | undefined, waitSeconds: number): Promise<Answer> {
    const demand = new Metadata();
    if (token !== undefined) {
      demand.set("sightline-consistency", "at-least");
      demand.set("sightline-consistency-token", token);
      demand.set("sightline-wait", String(waitSeconds));
    }
    // The call's deadline lies behind the wait, so that the gateway's refusal arrives.
    const deadline = Date.now() + (waitSeconds + 1) * 1000;
    return new Promise((resolve, reject) => {
      let addresses: ShippingAddress[] = [];
      const done = (error: ServiceError | null, answer?: { addresses: ShippingAddress[] }) => {
        if (error) reject(error);
        addresses = answer?.addresses ?? [];
      };
      const call: ClientUnaryCall = this.client.listAddresses({ userId }, demand, { deadline }, done);
      // Answers speak of themselves in the trailers, which come after the message.
      call.on("status", ({ metadata }) => {
        const token = String(metadata.get("sightline-consistency-token")[0] ?? "");
        resolve({ addresses, token, isIncomplete: metadata.get("sightline-incomplete").length > 0 });
      });
    });
  }
}
