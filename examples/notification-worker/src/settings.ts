// What the environment says.

export interface Settings {
  /** The gateway's HTTP port. */
  gateway: URL;
  /** The SMTP server, with user and password if it wants them. */
  smtp: string;
  /** The sender's address. Its domain ends every Message-ID. */
  from: string;
  /** The website that links lead to. */
  site: URL;
  /** How many notifications are leased, and settled, at once: 1 to 100. */
  batchSize: number;
  /** How many mails are sent at once, each over its own connection. */
  connections: number;
  /** For how long a notification is leased, and its lease extended, in seconds: 5 to 3,600. */
  leaseSeconds: number;
  /** How long a shutdown may take, in seconds. */
  shutdownSeconds: number;
}

/** Throws an error that names a setting that is missing or wrong. */
export function readSettings(env: NodeJS.ProcessEnv): Settings {
  return {
    gateway: url(env, "SIGHTLINE_URL"),
    smtp: url(env, "SMTP_URL").href,
    from: address(env, "MAIL_FROM"),
    site: url(env, "SITE_URL"),
    batchSize: integer(env, "BATCH_SIZE", 20, 1, 100),
    connections: integer(env, "SMTP_CONNECTIONS", 5, 1, 100),
    leaseSeconds: integer(env, "LEASE_SECONDS", 60, 5, 3600),
    shutdownSeconds: integer(env, "SHUTDOWN_SECONDS", 25, 1, 3600),
  };
}

function text(env: NodeJS.ProcessEnv, name: string): string {
  const value = env[name];
  if (!value) {
    throw new Error(`${name} is not set`);
  }
  return value;
}

// Errors leave the value out: it may contain a password.
function url(env: NodeJS.ProcessEnv, name: string): URL {
  const value = text(env, name);
  if (!URL.canParse(value)) {
    throw new Error(`${name} is not a URL`);
  }
  return new URL(value);
}

function address(env: NodeJS.ProcessEnv, name: string): string {
  const value = text(env, name);
  if (!/^[^\s@<>]+@[^\s@<>]+$/.test(value)) {
    throw new Error(`${name} is not an email address`);
  }
  return value;
}

function integer(env: NodeJS.ProcessEnv, name: string, otherwise: number, min: number, max: number): number {
  const value = env[name] ? Number(env[name]) : otherwise;
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new Error(`${name} must be ${min} to ${max}`);
  }
  return value;
}
