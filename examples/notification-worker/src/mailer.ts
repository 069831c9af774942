// Sends notifications by SMTP.

import { createTransport } from "nodemailer";
import { backoff } from "./backoff.js";
import type { LeasedNotification } from "./gateway.js";
import { warn } from "./log.js";
import type { Settings } from "./settings.js";
import { render } from "./templates.js";

export class Mailer {
  private readonly transport;
  private isReachable = false;

  constructor(private readonly settings: Settings) {
    this.transport = createTransport({
      url: settings.smtp,
      pool: true,
      maxConnections: settings.connections,
      // The queue decides whether a mail is sent again.
      maxRequeues: 0,
      connectionTimeout: 10_000,
      greetingTimeout: 10_000,
      socketTimeout: 60_000,
    });
  }

  /** Waits until the SMTP server accepts connections, if it was not known to. Rejects when `signal` is aborted. */
  async ready(signal: AbortSignal): Promise<void> {
    for (let attempt = 0; !this.isReachable; attempt++) {
      try {
        await this.transport.verify();
        this.isReachable = true;
      } catch (error) {
        warn("the SMTP server cannot be used now", { problem: describe(error), attempt });
        await backoff(attempt, 0, signal);
      }
    }
  }

  /** Returns why it was not sent, without personal data, or else nothing. */
  async send(notification: LeasedNotification): Promise<string | undefined> {
    const { from, site } = this.settings;
    try {
      await this.transport.sendMail({
        from,
        // As an object it is one address, whatever it contains: a string would be parsed as a list.
        to: { name: "", address: notification.recipient },
        messageId: messageId(notification.notificationId, from),
        // Asks for no automatic answers (RFC 3834).
        headers: { "Auto-Submitted": "auto-generated" },
        ...render(notification, site),
      });
      return undefined;
    } catch (error) {
      this.isReachable &&= isAboutTheMail(error);
      return describe(error);
    }
  }

  close(): void {
    this.transport.close();
  }
}

/** The same for every attempt of every worker: who receives a mail twice can recognise it. */
export function messageId(notificationId: string, from: string): string {
  return `<${notificationId}@${from.slice(from.lastIndexOf("@") + 1)}>`;
}

/** Whether the server refused this mail, not all of them. */
function isAboutTheMail(error: unknown): boolean {
  const code = property(error, "code");
  return code === "EENVELOPE" || code === "EMESSAGE";
}

/**
 * What happened, from codes alone: messages of nodemailer and replies of servers repeat addresses. Of a reply that is
 * its code (550) and its enhanced code (5.1.1).
 */
function describe(error: unknown): string {
  const responseCode = property(error, "responseCode");
  if (typeof responseCode === "number") {
    const enhanced = /^\d{3}[ -](\d\.\d{1,3}\.\d{1,3})\b/.exec(String(property(error, "response")))?.[1];
    return `the SMTP server answers ${responseCode}${enhanced === undefined ? "" : ` ${enhanced}`}`;
  }
  const code = property(error, "code");
  return code === "EENVELOPE"
    ? "the address cannot be used with SMTP"
    : `sending failed: ${String(code ?? "unknown error")}`;
}

function property(error: unknown, name: string): unknown {
  return error instanceof Error ? (error as unknown as Record<string, unknown>)[name] : undefined;
}
