// An SMTP server that keeps what it gets.

import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { SMTPServer } from "smtp-server";

export interface Mail {
  recipients: string[];
  messageId: string;
  source: string;
}

export class Sink {
  readonly mails: Mail[] = [];
  /** Refused recipients. */
  readonly refused = new Set<string>();
  /** How long it takes to accept a mail. */
  delayMs = 0;
  /** How many mails it accepts. Further ones wait until there may be more. */
  limit = Infinity;
  private readonly server: SMTPServer;

  constructor() {
    this.server = new SMTPServer({
      logger: false,
      disabledCommands: ["AUTH", "STARTTLS"],
      // Addresses may be in any script.
      hideSMTPUTF8: false,
      onRcptTo: ({ address }, _session, callback) => {
        if (this.refused.has(address)) {
          callback(Object.assign(new Error(`5.1.1 <${address}> is unknown here`), { responseCode: 550 }));
        } else {
          callback();
        }
      },
      onData: (stream, { envelope }, callback) => {
        const chunks: Buffer[] = [];
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        stream.on("end", async () => {
          await sleep(this.delayMs);
          while (this.mails.length >= this.limit) {
            await sleep(10, undefined, { ref: false });
          }
          const source = Buffer.concat(chunks).toString("utf8");
          const messageId = /^Message-ID: (<[^>]+>)\r$/m.exec(source)?.[1] ?? "";
          this.mails.push({ recipients: envelope.rcptTo.map(({ address }) => address), messageId, source });
          callback();
        });
      },
    });
    // A client that was killed.
    this.server.on("error", () => {});
  }

  /** Listens on a free port, or on this one. Returns its URL. */
  async listen(port = 0): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    return `smtp://127.0.0.1:${(this.server.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }
}
