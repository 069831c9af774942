// The loop: leases notifications, sends each, settles them all, until it is to stop.
//
// A notification is sent at least once. It is sent again only if a worker ended between sending and acknowledging, could
// not acknowledge before the lease ran out, or got no answer to a mail that arrived; each time with the same Message-ID.

import { setTimeout as sleep } from "node:timers/promises";
import { backoff } from "./backoff.js";
import { type Failure, Gateway, type Held, type LeasedNotification } from "./gateway.js";
import { info, warn } from "./log.js";
import { Mailer } from "./mailer.js";
import type { Settings } from "./settings.js";
import { TEMPLATE_NAMES } from "./templates.js";

/** How long a request for a lease waits at the gateway, in seconds. */
const WAIT_SECONDS = 20;

/** A notification of a batch, and what became of it. */
interface Item {
  notification: LeasedNotification;
  state: "held" | "lost" | "sent" | { reason: string };
}

export class Worker {
  private readonly gateway: Gateway;
  private readonly mailer: Mailer;
  /**
   * Until when (in ms) a notification may be leased again that was sent, but whose acknowledgement the gateway has not
   * accepted: it is then acknowledged, not sent again.
   */
  private readonly sent = new Map<string, number>();

  constructor(private readonly settings: Settings) {
    this.gateway = new Gateway(settings.gateway);
    this.mailer = new Mailer(settings);
  }

  /** Works until `stop` is aborted and what is held is settled. Rejects when the gateway refuses a request for good. */
  async run(stop: AbortSignal): Promise<void> {
    // How many batches in a row were in vain: not one mail was sent.
    let inVain = 0;
    try {
      while (!stop.aborted) {
        const leased = await this.lease(inVain, stop);
        if (leased.length > 0) {
          inVain = (await this.work(leased)) ? 0 : inVain + 1;
        }
      }
    } finally {
      this.mailer.close();
    }
  }

  /**
   * Leases a batch, when mails can be sent: each lease counts as an attempt. After batches in vain it pauses, because the
   * server may refuse all mails (the sender's address, for one). A request that waits is given up when the worker stops;
   * the gateway gives what it would have got to others.
   */
  private async lease(inVain: number, stop: AbortSignal): Promise<LeasedNotification[]> {
    try {
      if (inVain > 0) {
        await backoff(inVain - 1, 0, stop);
      }
      await this.mailer.ready(stop);
      return await this.gateway.lease(
        {
          max: this.settings.batchSize,
          leaseSeconds: this.settings.leaseSeconds,
          // Templates that are added later wait for a program that knows them.
          templates: TEMPLATE_NAMES,
          waitSeconds: WAIT_SECONDS,
        },
        stop,
      );
    } catch (error) {
      if (stop.aborted) {
        return [];
      }
      throw error;
    }
  }

  /** Sends what was leased and settles it. The leases are extended until then. Returns whether any of it was sent. */
  private async work(leased: LeasedNotification[]): Promise<boolean> {
    const items = leased.map((notification): Item => ({ notification, state: "held" }));
    const settled = new AbortController();
    const extending = this.extend(items, settled.signal);
    try {
      const waiting = items.values();
      const senders = Array.from({ length: this.settings.connections }, async () => {
        for (const item of waiting) {
          await this.send(item);
        }
      });
      await Promise.all(senders);
      await this.settle(items);
      return items.some((item) => item.state === "sent");
    } finally {
      settled.abort();
      await extending;
    }
  }

  private async send(item: Item): Promise<void> {
    const { notificationId, template, attempts, expiresAt } = item.notification;
    if (item.state === "lost") {
      return;
    }
    if (this.sent.has(notificationId)) {
      item.state = "sent";
      return;
    }
    const reason = await this.mailer.send(item.notification);
    if (reason === undefined) {
      this.sent.set(notificationId, Date.parse(expiresAt));
      item.state = "sent";
      info("sent", { notificationId, template, attempts });
    } else {
      item.state = { reason };
      warn("not sent", { notificationId, template, attempts, reason });
    }
  }

  private async settle(items: Item[]): Promise<void> {
    const sent = items.filter((item) => item.state === "sent").map((item) => held(item));
    if (sent.length > 0) {
      for (const { notificationId, outcome } of await this.gateway.acknowledge(sent)) {
        if (outcome === "lost") {
          warn("another worker has the lease, and may send it too", { notificationId });
        } else {
          this.sent.delete(notificationId);
        }
      }
    }
    const failures = items.flatMap((item): Failure[] =>
      typeof item.state === "object" ? [{ ...held(item), reason: item.state.reason }] : [],
    );
    if (failures.length > 0) {
      await this.gateway.fail(failures);
    }
    for (const [notificationId, until] of this.sent) {
      if (until < Date.now()) {
        this.sent.delete(notificationId);
      }
    }
  }

  /** Extends leases until `settled`. What another worker has meanwhile, or was cancelled, is not sent any more. */
  private async extend(items: Item[], settled: AbortSignal): Promise<void> {
    const { leaseSeconds } = this.settings;
    try {
      for (;;) {
        await sleep((leaseSeconds * 1000) / 3, undefined, { signal: settled });
        await Promise.all(
          items.map(async (item) => {
            const isHeld = item.state === "lost" || (await this.gateway.extend(held(item), leaseSeconds, settled));
            if (!isHeld && item.state === "held") {
              item.state = "lost";
            }
          }),
        );
      }
    } catch (error) {
      if (!settled.aborted) {
        warn("leases are not extended", { problem: error instanceof Error ? error.message : "unknown error" });
      }
    }
  }
}

function held({ notification: { notificationId, leaseToken } }: Item): Held {
  return { notificationId, leaseToken };
}
