// Log lines in JSON. None has personal data: no address, no user id, no text that another server has sent.

type Fields = Record<string, string | number>;

export function info(message: string, fields: Fields = {}): void {
  console.log(line("INFO", message, fields));
}

export function warn(message: string, fields: Fields = {}): void {
  console.error(line("WARN", message, fields));
}

function line(level: string, message: string, fields: Fields): string {
  return JSON.stringify({ timestamp: new Date().toISOString(), level, message, ...fields });
}
