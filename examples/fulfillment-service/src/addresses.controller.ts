import { randomUUID } from "node:crypto";

import { BadRequestException, Body, Controller, Get, Headers, Param, Post, Res } from "@nestjs/common";
import type { Response } from "express";

import { type EnteredAddress, Events } from "./events.js";
import { isServiceError, refusalOf } from "./refusal.js";
import { Sightline } from "./sightline.js";

const TOKEN = "Sightline-Consistency-Token";

@Controller("users/:userId/addresses")
export class AddressesController {
  constructor(
    private readonly events: Events,
    private readonly sightline: Sightline,
  ) {}

  /** Adds an address, and answers with it as the view has it: with lines for the label, and the result of validation. */
  @Post()
  async add(@Param("userId") userId: string, @Body() body: unknown, @Res({ passthrough: true }) response: Response) {
    const addressId = randomUUID();
    const written = await this.events.addAddress(userId, addressId, entered(body));
    try {
      const { addresses, token } = await this.sightline.addresses(userId, written, 5);
      response.setHeader(TOKEN, token);
      return addresses.find((address) => address.addressId === addressId);
    } catch (error) {
      if (!isServiceError(error)) throw error;
      // The event is published, so this is no failure, and a second POST would add the address again. The caller reads it later,
      // with the token of the write.
      response.status(202).setHeader(TOKEN, written);
      return { addressId, reason: refusalOf(error).reason };
    }
  }

  /** The user's addresses, not older than the caller's token; without one as they are now. */
  @Get()
  async list(
    @Param("userId") userId: string,
    @Headers(TOKEN) demanded: string | undefined,
    @Res({ passthrough: true }) response: Response,
  ) {
    const { addresses, token, isIncomplete } = await this.sightline.addresses(userId, demanded, 1);
    response.setHeader(TOKEN, token);
    return { addresses, isIncomplete };
  }
}

function entered(body: unknown): EnteredAddress {
  const field = (name: keyof EnteredAddress): string => {
    const value = body instanceof Object ? (body as Record<string, unknown>)[name] : undefined;
    if (typeof value !== "string" || value === "" || value.length > 200) {
      throw new BadRequestException(`${name} must be a text of 1 to 200 characters`);
    }
    return value;
  };
  return {
    streetLine1: field("streetLine1"),
    city: field("city"),
    postalCode: field("postalCode"),
    country: field("country"),
  };
}
