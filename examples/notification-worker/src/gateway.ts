// The gateway's queue over REST. A call that fails for a while is repeated until it succeeds.

import { backoff } from "./backoff.js";
import { warn } from "./log.js";
import type { Content } from "./templates.js";

/** What a settled or extended lease is named by. */
export interface Held {
  notificationId: string;
  leaseToken: string;
}

/** A notification that this worker holds. */
export interface LeasedNotification extends Held, Content {
  recipient: string;
  attempts: number;
  expiresAt: string;
}

export interface Failure extends Held {
  /** 1 to 500 characters, without personal data. */
  reason: string;
}

export interface Outcome {
  notificationId: string;
  outcome: "ok" | "lost" | "cancelled" | "not_found";
  status?: string;
}

export interface LeaseRequest {
  max: number;
  leaseSeconds: number;
  templates: readonly string[];
  waitSeconds: number;
}

/** An answer that repeating the call does not change: a wrong request, or a lease that was lost. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    reason: string,
  ) {
    super(`the gateway answers ${status} ${reason}`);
  }
}

const NOTIFICATIONS = "/v1/notification/notifications";
/** How long the gateway may take to answer, in seconds: longer than a request for a lease waits there. */
const REQUEST_SECONDS = 30;

export class Gateway {
  constructor(private readonly url: URL) {}

  /** The oldest pending notifications; none if there were none for `waitSeconds`. Rejects when `signal` is aborted. */
  async lease(request: LeaseRequest, signal: AbortSignal): Promise<LeasedNotification[]> {
    const leased = await this.post<{ notifications: LeasedNotification[] }>(":lease", request, signal);
    return leased.notifications;
  }

  async acknowledge(items: Held[]): Promise<Outcome[]> {
    return (await this.post<{ outcomes: Outcome[] }>(":ack", { items })).outcomes;
  }

  async fail(items: Failure[]): Promise<Outcome[]> {
    return (await this.post<{ outcomes: Outcome[] }>(":fail", { items })).outcomes;
  }

  /**
   * Whether the lease was extended. If not, another worker holds the notification, or it was cancelled. Rejects when `signal`
   * is aborted.
   */
  async extend({ notificationId, leaseToken }: Held, leaseSeconds: number, signal: AbortSignal): Promise<boolean> {
    try {
      await this.post(`/${notificationId}/extend`, { leaseToken, leaseSeconds }, signal);
      return true;
    } catch (error) {
      if (error instanceof Refusal && (error.status === 409 || error.status === 404)) {
        return false;
      }
      throw error;
    }
  }

  /** Repeats a call until it is answered. Rejects with a `Refusal`, or when `signal` is aborted. */
  private async post<T>(path: string, body: object, signal?: AbortSignal): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      const answer = await this.postOnce(path, body, signal);
      if ("body" in answer) {
        return answer.body as T;
      }
      warn("the gateway cannot be used now", { problem: answer.problem, attempt });
      await backoff(attempt, answer.retryAfterMs, signal);
    }
  }

  private async postOnce(path: string, body: object, signal?: AbortSignal): Promise<Answer> {
    // Not AbortSignal.any(): in Node 20 each of its signals stays in memory as long as `signal` does.
    const request = new AbortController();
    const cancel = () => request.abort();
    signal?.throwIfAborted();
    signal?.addEventListener("abort", cancel);
    const timeout = setTimeout(cancel, (REQUEST_SECONDS + 5) * 1000);
    try {
      const response = await fetch(new URL(NOTIFICATIONS + path, this.url), {
        method: "POST",
        headers: { "content-type": "application/json", "request-timeout": String(REQUEST_SECONDS) },
        body: JSON.stringify(body),
        signal: request.signal,
      });
      if (response.ok) {
        return { body: await response.json() };
      }
      const reason = await reasonOf(response);
      if (!passes(response.status, reason)) {
        throw new Refusal(response.status, reason);
      }
      const retryAfterMs = 1000 * (Number(response.headers.get("retry-after")) || 0);
      return { problem: `${response.status} ${reason}`, retryAfterMs };
    } catch (error) {
      if (error instanceof Refusal) {
        throw error;
      }
      signal?.throwIfAborted();
      return { problem: "no answer", retryAfterMs: 0 };
    } finally {
      clearTimeout(timeout);
      signal?.removeEventListener("abort", cancel);
    }
  }
}

/** The body of an answer, or a problem that passes. */
type Answer = { body: unknown } | { problem: string; retryAfterMs: number };

/** The stable word in a problem of the gateway (RFC 9457). A proxy's answer has none. */
async function reasonOf(response: Response): Promise<string> {
  const problem: unknown = await response.json().catch(() => undefined);
  const reason = problem instanceof Object && "reason" in problem ? problem.reason : undefined;
  return typeof reason === "string" && /^[A-Z_]{1,40}$/.test(reason) ? reason : "";
}

/** After a restore of the database, leasing is held until an operator resumes it: worth waiting for, too. */
function passes(status: number, reason: string): boolean {
  return status >= 500 || status === 429 || reason === "LEASING_HELD";
}
