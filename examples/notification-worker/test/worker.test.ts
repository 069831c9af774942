// The loop against a gateway that is made up, and does what a real one does rarely.

import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import type { Settings } from "../src/settings.js";
import { Worker } from "../src/worker.js";
import { type Mail, Sink } from "./sink.js";
import { SETTINGS, until } from "./support.js";

interface Call {
  path: string;
  body: { items?: { notificationId: string; leaseToken: string; reason?: string }[]; leaseToken?: string };
}

/** What the gateway answers: a body, a problem, or nothing (the connection breaks). */
type Answer = object | { status: number; reason: string; retryAfter?: number } | undefined;

/** A worker at work, with its gateway and its SMTP server. The gateway answers as `answer` says, else with what is usual. */
async function start(
  t: TestContext,
  answer: (call: Call) => Answer | "usual",
  settings: Partial<Settings> = {},
  sink = new Sink(),
) {
  const calls: Call[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const path = (request.url ?? "").replace("/v1/notification/notifications", "");
      const call: Call = { path, body: JSON.parse(Buffer.concat(chunks).toString()) as Call["body"] };
      calls.push(call);
      let answered = answer(call);
      if (answered === "usual") {
        const outcomes = (call.body.items ?? []).map(({ notificationId }) => ({ notificationId, outcome: "ok" }));
        answered = { outcomes };
      }
      if (answered === undefined) {
        response.destroy();
      } else if ("reason" in answered) {
        if (answered.retryAfter !== undefined) {
          response.setHeader("retry-after", answered.retryAfter);
        }
        response.writeHead(answered.status, { "content-type": "application/problem+json" });
        response.end(JSON.stringify(answered));
      } else if (path === ":lease" && "notifications" in answered && (answered.notifications as []).length === 0) {
        // The request waits until the worker gives it up.
      } else {
        response.end(JSON.stringify(answered));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const gateway = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const smtp = settings.smtp ?? (await sink.listen());
  const stop = new AbortController();
  const ended = new Worker({ ...SETTINGS, ...settings, gateway, smtp }).run(stop.signal);
  t.after(async () => {
    stop.abort();
    await ended.catch(() => {});
    server.closeAllConnections();
    server.close();
    await sink.close();
  });
  return { calls, sink, stop, ended, of: (path: string) => calls.filter((call) => call.path.endsWith(path)) };
}

function notification(number: number, token = number, recipient = `user${number}@example.org`) {
  const uuid = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`;
  return {
    notificationId: uuid(number),
    leaseToken: uuid(token),
    template: "welcome",
    data: { userId: `u-${number}` },
    recipient,
    attempts: 1,
    createdAt: "2026-11-02T17:05:10Z",
    expiresAt: "2999-01-01T00:00:00Z",
  };
}

/** Answers of requests for leases, one after the other; then there is nothing. */
function leases(...batches: object[][]): (call: Call) => Answer | "usual" {
  return ({ path }) => (path === ":lease" ? { notifications: batches.shift() ?? [] } : "usual");
}

function ids(mails: Mail[]): string[] {
  return mails.map(({ messageId }) => messageId);
}

test("what is sent is acknowledged in one batch", async (t) => {
  const { sink, of } = await start(t, leases([notification(1), notification(2), notification(3)]));
  await until("an acknowledgement", () => of(":ack").length > 0);
  assert.equal(of(":ack")[0]?.body.items?.length, 3);
  assert.deepEqual(of(":fail"), []);
  assert.equal(new Set(ids(sink.mails)).size, 3);
  const mail = sink.mails.find(({ recipients }) => recipients[0] === "user1@example.org");
  assert.equal(mail?.messageId, "<00000000-0000-4000-8000-000000000001@shop.example>");
  assert.match(mail.source, /^Auto-Submitted: auto-generated\r\n/m);
  assert.match(mail.source, /^To: user1@example\.org\r\n/m);
});

test("an acknowledgement whose answer is lost is repeated, not the mail", async (t) => {
  const usual = leases([notification(1)]);
  const { sink, of } = await start(t, (call) =>
    call.path === ":ack" && of(":ack").length === 1 ? undefined : usual(call),
  );
  await until("a second acknowledgement", () => of(":ack").length === 2);
  await until("another request for a lease", () => of(":lease").length === 2);
  assert.deepEqual(of(":ack")[0]?.body, of(":ack")[1]?.body);
  assert.equal(sink.mails.length, 1);
});

test("what is leased again after it was sent is acknowledged, not sent", async (t) => {
  const usual = leases([notification(1, 11)], [notification(1, 12)]);
  const { sink, of } = await start(t, (call) => {
    const [item] = call.body.items ?? [];
    // The lease has passed to another worker, which did nothing.
    return call.path === ":ack" && item?.leaseToken.endsWith("11")
      ? { outcomes: [{ notificationId: item.notificationId, outcome: "lost", status: "leased" }] }
      : usual(call);
  });
  await until("a third request for a lease", () => of(":lease").length === 3);
  assert.equal(of(":ack").length, 2);
  assert.equal(sink.mails.length, 1);
});

test("problems that pass are waited out", async (t) => {
  const problems = [
    { status: 409, reason: "LEASING_HELD" },
    { status: 503, reason: "DATABASE_UNAVAILABLE", retryAfter: 2 },
  ];
  const usual = leases([notification(1)]);
  const began = Date.now();
  const { sink, of } = await start(t, (call) => problems.shift() ?? usual(call));
  await until("an acknowledgement", () => of(":ack").length === 1);
  assert.equal(of(":lease").length >= 3, true);
  assert.equal(Date.now() - began >= 2200, true, "Retry-After counts");
  assert.equal(sink.mails.length, 1);
});

test("a wrong request ends the worker", async (t) => {
  const { ended } = await start(t, () => ({ status: 400, reason: "INVALID_ARGUMENT" }));
  await assert.rejects(ended, /400 INVALID_ARGUMENT/);
});

test("leases are extended while mails are sent, and what was lost meanwhile is not sent", async (t) => {
  const sink = new Sink();
  sink.delayMs = 2500;
  const usual = leases([notification(1), notification(2)]);
  const isLost = ({ path }: Call) => path.endsWith("/extend") && path.includes("000000000002");
  const { of } = await start(
    t,
    (call) => (isLost(call) ? { status: 409, reason: "NOTIFICATION_CANCELLED" } : usual(call)),
    { connections: 1, leaseSeconds: 5 },
    sink,
  );
  await until("an acknowledgement", () => of(":ack").length === 1);
  assert.equal(of("/extend").length, 2);
  assert.equal(of(":ack")[0]?.body.items?.length, 1);
  assert.deepEqual(
    sink.mails.map(({ recipients }) => recipients),
    [["user1@example.org"]],
  );
});

test("reasons of failures have no address, and an address is never several", async (t) => {
  const sink = new Sink();
  sink.refused.add("user1@example.org");
  const hostile = [
    "a@example.org, b@example.org",
    "a@example.org>\r\nRCPT TO:<b@example.org",
    "a@example.org\r\nBcc: b@example.org",
    "",
    "a".repeat(1 << 20),
  ];
  const leased = [notification(1), ...hostile.map((recipient, i) => notification(i + 2, i + 2, recipient))];
  const { of } = await start(t, leases(leased), {}, sink);
  await until("a report of failures", () => of(":fail").length === 1);
  const items = of(":fail")[0]?.body.items ?? [];
  assert.equal(items.length, leased.length);
  assert.equal(items[0]?.reason, "the SMTP server answers 550 5.1.1");
  for (const { reason } of items) {
    assert.match(reason ?? "", /^[A-Za-z0-9 .:]{1,100}$/);
  }
  assert.deepEqual(sink.mails, []);
});

test("while the SMTP server cannot be reached nothing is leased", async (t) => {
  const sink = new Sink();
  const smtp = await sink.listen();
  await sink.close();
  const later = new Sink();
  const { of } = await start(t, leases([notification(1)]), { smtp }, later);
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.equal(of(":lease").length, 0);
  await later.listen(Number(new URL(smtp).port));
  await until("an acknowledgement", () => of(":ack").length === 1);
});

test("a server that refuses every mail is not given one after the other", async (t) => {
  const sink = new Sink();
  const leased = [1, 2, 3, 4].map((number) => notification(number));
  leased.slice(0, 3).forEach(({ recipient }) => sink.refused.add(recipient));
  const began = Date.now();
  const { of } = await start(t, leases(...leased.map((one) => [one])), {}, sink);
  await until("an acknowledgement", () => of(":ack").length === 1);
  assert.equal(of(":fail").length, 3);
  assert.equal(Date.now() - began >= 250 + 500 + 1000, true);
});

test("a worker that is stopped settles what it holds and leases no more", async (t) => {
  const sink = new Sink();
  sink.delayMs = 300;
  const leased = [1, 2, 3, 4].map((number) => notification(number));
  const { of, stop, ended } = await start(t, leases(leased, [notification(5)]), {}, sink);
  await until("a mail", () => sink.mails.length > 0);
  stop.abort();
  await ended;
  assert.equal(of(":ack")[0]?.body.items?.length, 4);
  assert.equal(of(":lease").length, 1);
});
