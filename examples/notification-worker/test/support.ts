import { setTimeout as sleep } from "node:timers/promises";
import type { Settings } from "../src/settings.js";

export const SETTINGS: Settings = {
  gateway: new URL("http://127.0.0.1:1"),
  smtp: "smtp://127.0.0.1:1",
  from: "shop@shop.example",
  site: new URL("https://shop.example/"),
  batchSize: 10,
  connections: 2,
  leaseSeconds: 60,
  shutdownSeconds: 10,
};

/** Waits until a condition holds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, seconds = 60): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  while (!(await holds())) {
    if (Date.now() > deadline) {
      throw new Error(`not within ${seconds} s: ${what}`);
    }
    await sleep(50);
  }
}
