import "reflect-metadata";
import { Module } from "@nestjs/common";
import { APP_FILTER, NestFactory } from "@nestjs/core";

import { AddressesController } from "./addresses.controller.js";
import { Events } from "./events.js";
import { RefusalFilter } from "./refusal.js";
import { Settings } from "./settings.js";
import { Sightline } from "./sightline.js";

@Module({
  controllers: [AddressesController],
  providers: [Events, Settings, Sightline, { provide: APP_FILTER, useClass: RefusalFilter }],
})
class FulfillmentModule {}

const app = await NestFactory.create(FulfillmentModule, { logger: ["error", "warn"] });
app.enableShutdownHooks();
await app.listen(app.get(Settings).port, "127.0.0.1");
console.log(`listening on ${await app.getUrl()}`);
