// The program against a gateway with sample users: `sightline dev`. SIGHTLINE is the path of sightline.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { test, type TestContext } from "node:test";
import { messageId } from "../src/mailer.js";
import { Sink } from "./sink.js";
import { SETTINGS, until } from "./support.js";

const SIGHTLINE = process.env["SIGHTLINE"];
const PROGRAM = fileURLToPath(new URL("../src/main.js", import.meta.url));
/** The shortest lease: a test waits until one has run out. */
const LEASE_SECONDS = 5;
const BATCH_SIZE = 8;

interface Row {
  notificationId: string;
  recipient: string;
  status: string;
  attempts: number;
  lastError?: string;
}

/** A gateway that has read its sample, which does not grow. */
async function startGateway(t: TestContext): Promise<string> {
  assert(SIGHTLINE, "SIGHTLINE is not set");
  const loopback = ["--http-addr", "--grpc-addr", "--admin-addr"].flatMap((flag) => [flag, "127.0.0.1:0"]);
  const gateway = spawn(SIGHTLINE, ["dev", "--rate", "0", "--domains", "notification", ...loopback], {
    env: { ...process.env, SIGHTLINE_NOTIFICATION_BACKOFF_SECONDS: "1", SIGHTLINE_NOTIFICATION_MAX_ATTEMPTS: "2" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => end(gateway, "SIGINT"));
  let printed = "";
  gateway.stdout.on("data", (chunk: Buffer) => (printed += chunk.toString()));
  const address = () => /^ *HTTP\/JSON *(http:\S+)/m.exec(printed)?.[1];
  await until("sightline dev prints its address", () => address() !== undefined || gateway.exitCode !== null, 180);
  const url = address();
  assert(url, "sightline dev did not start");
  return url;
}

function startWorker(t: TestContext, gateway: string, smtp: string): ChildProcess {
  const worker = spawn(process.execPath, [PROGRAM], {
    env: {
      SIGHTLINE_URL: gateway,
      SMTP_URL: smtp,
      MAIL_FROM: SETTINGS.from,
      SITE_URL: SETTINGS.site.href,
      BATCH_SIZE: String(BATCH_SIZE),
      SMTP_CONNECTIONS: "2",
      LEASE_SECONDS: String(LEASE_SECONDS),
    },
    stdio: "inherit",
  });
  t.after(() => end(worker, "SIGKILL"));
  return worker;
}

/** Ends a process. Returns its exit code, or else nothing: it was killed. */
async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) {
    const exit = once(child, "exit");
    child.kill(signal);
    await exit;
  }
  return child.exitCode;
}

async function list(gateway: string, ...statuses: string[]): Promise<Row[]> {
  const query = new URLSearchParams({ pageSize: "1000" });
  statuses.forEach((status) => query.append("status", status));
  const response = await fetch(`${gateway}/v1/notification/notifications?${query}`);
  assert.equal(response.status, 200);
  return ((await response.json()) as { notifications: Row[] }).notifications;
}

async function isDrained(gateway: string): Promise<boolean> {
  return (await list(gateway, "pending", "leased")).length === 0;
}

function keys(rows: Row[]): string[] {
  return rows.map((row) => `${messageId(row.notificationId, SETTINGS.from)} to ${row.recipient}`).sort();
}

function mailed(sink: Sink): string[] {
  return sink.mails.map((mail) => `${mail.messageId} to ${mail.recipients.join()}`).sort();
}

test("every notification is mailed once to its recipient, or fails", async (t) => {
  const gateway = await startGateway(t);
  const sink = new Sink();
  t.after(() => sink.close());
  const pending = await list(gateway, "pending");
  assert(pending.length > 3 * BATCH_SIZE, "the sample has something to send");
  const before = await list(gateway, "sent", "failed");
  assert.deepEqual(before, []);
  const unknown = pending[5]?.recipient ?? "";
  sink.refused.add(unknown);
  const worker = startWorker(t, gateway, await sink.listen());

  await until("the queue is drained", () => isDrained(gateway));
  const [refused, accepted] = [true, false].map((is) => pending.filter((row) => (row.recipient === unknown) === is));
  assert.deepEqual(mailed(sink), keys(accepted ?? []));
  const sent = await list(gateway, "sent");
  assert.deepEqual(keys(sent), keys(accepted ?? []));
  assert.deepEqual(new Set(sent.map(({ attempts }) => attempts)), new Set([1]));
  const failed = await list(gateway, "failed");
  assert.deepEqual(keys(failed), keys(refused ?? []));
  for (const row of failed) {
    assert.equal(row.attempts, 2);
    assert.equal(row.lastError, "the SMTP server answers 550 5.1.1");
  }

  // It waits at the gateway, and does not make the shutdown wait.
  const began = Date.now();
  assert.equal(await end(worker, "SIGTERM"), 0);
  assert(Date.now() - began < 5000);
});

test("a worker that is stopped settles what it holds; one that is killed loses nothing, and repeats at most a batch", async (t) => {
  const gateway = await startGateway(t);
  const sink = new Sink();
  t.after(() => sink.close());
  const smtp = await sink.listen();
  const pending = await list(gateway, "pending");
  assert(pending.length > 4 * BATCH_SIZE, "the sample has something to send");

  sink.limit = 3;
  const stopped = startWorker(t, gateway, smtp);
  await until("some mails are sent", () => sink.mails.length === 3);
  const exitCode = end(stopped, "SIGTERM");
  sink.limit = Infinity;
  assert.equal(await exitCode, 0);
  assert.deepEqual(mailed(sink), keys(await list(gateway, "sent")));
  assert.deepEqual(await list(gateway, "leased"), []);
  const rest = await list(gateway, "pending");
  assert.equal(rest.length, pending.length - BATCH_SIZE);
  assert.deepEqual(new Set(rest.map(({ attempts }) => attempts)), new Set([0]));

  // It has sent three mails of its second batch.
  sink.limit = 2 * BATCH_SIZE + 3;
  const killed = startWorker(t, gateway, smtp);
  await until("some more mails are sent", () => sink.mails.length === sink.limit);
  assert.equal(await end(killed, "SIGKILL"), null);
  assert.equal((await list(gateway, "leased")).length, BATCH_SIZE);
  sink.limit = Infinity;

  const last = startWorker(t, gateway, smtp);
  await until("the queue is drained", () => isDrained(gateway));
  assert.equal(await end(last, "SIGTERM"), 0);
  assert.deepEqual([...new Set(mailed(sink))], keys(pending));
  assert.deepEqual(keys(await list(gateway, "sent")), keys(pending));
  const repeated = sink.mails.length - pending.length;
  assert(repeated >= 3 && repeated <= BATCH_SIZE, `${repeated} mails are repeated`);
});
