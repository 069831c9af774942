// What each notification says, in plain text.

/** What is known of every user. */
interface UserData {
  userId: string;
  firstName?: string;
  username?: string;
}

interface MfaData extends UserData {
  mfaMethod?: string;
}

interface AccountData extends UserData {
  reason?: string;
  previousStatus?: string;
  newStatus?: string;
}

/** The data of each template. What is optional is absent where the event lacked it. */
interface DataOf {
  welcome: UserData;
  email_verification: UserData;
  email_verified: UserData;
  password_changed: UserData & { changeType?: string };
  password_reset: UserData & { resetTokenIdentifier?: string };
  mfa_enabled: MfaData;
  mfa_disabled: MfaData;
  account_suspended: AccountData;
  account_reactivated: AccountData;
}

export type Template = keyof DataOf;

/** What a mail is made from. */
export interface Content<T extends Template = Template> {
  template: T;
  data: DataOf[T];
  /** When the event happened: the mail may be sent days later. */
  createdAt: string;
}

export interface Message {
  subject: string;
  text: string;
}

interface Body {
  subject: string;
  paragraphs: string[];
}

type Render<T extends Template> = (data: DataOf[T], at: string, site: URL) => Body;

// A template without an entry here does not compile.
const TEMPLATES: { [T in Template]: Render<T> } = {
  welcome: (_data, _at, site) => ({
    subject: "Welcome",
    paragraphs: ["Thank you for registering. Your account is ready:", link(site, "account")],
  }),
  email_verification: (_data, _at, site) => ({
    subject: "Please verify your email address",
    paragraphs: ["To verify your email address, sign in:", link(site, "verify-email")],
  }),
  email_verified: (_data, at) => ({
    subject: "Your email address is verified",
    paragraphs: [`You verified your email address on ${at}.`],
  }),
  password_changed: (data, at, site) => ({
    subject: "Your password was changed",
    paragraphs: [
      data.changeType === "reset_completed"
        ? `You set a new password on ${at}, after you had asked to reset it.`
        : `The password of your account was changed on ${at}.`,
      ...ifItWasNotYou(site),
    ],
  }),
  password_reset: (data, at, site) => ({
    subject: "Reset your password",
    paragraphs: [
      `On ${at} somebody asked to reset the password of your account. To choose a new one, follow this link:`,
      link(site, "reset-password", data.resetTokenIdentifier),
      "If you did not ask for it, ignore this mail: your password stays as it is.",
    ],
  }),
  mfa_enabled: (data, at, site) => ({
    subject: "Two-factor authentication is on",
    paragraphs: [`Two-factor authentication${by(data)} was enabled on ${at}.`, ...ifItWasNotYou(site)],
  }),
  mfa_disabled: (data, at, site) => ({
    subject: "Two-factor authentication is off",
    paragraphs: [`Two-factor authentication${by(data)} was disabled on ${at}.`, ...ifItWasNotYou(site)],
  }),
  account_suspended: (data, at, site) => ({
    subject: "Your account was suspended",
    paragraphs: [
      `Your account was suspended on ${at}.`,
      ...why(data),
      "To object, write to us:",
      link(site, "contact"),
    ],
  }),
  account_reactivated: (data, at, site) => ({
    subject: "Your account is active again",
    paragraphs: [`Your account was reactivated on ${at}.`, ...why(data), link(site, "account")],
  }),
};

/** The templates that this program knows. */
export const TEMPLATE_NAMES = Object.keys(TEMPLATES) as Template[];

export function render<T extends Template>(content: Content<T>, site: URL): Message {
  const at = `${content.createdAt.slice(0, 10)} at ${content.createdAt.slice(11, 16)} UTC`;
  const { subject, paragraphs } = TEMPLATES[content.template](content.data, at, site);
  return { subject, text: [greeting(content.data), ...paragraphs].join("\n\n") + "\n" };
}

// Users choose their names, and can register with somebody else's address: a name must not bring a link or a text of
// its own into a mail that we send.
function greeting(data: UserData): string {
  const isName = (name: string | undefined) =>
    name !== undefined && /^[\p{L}\p{M}\p{N}][\p{L}\p{M}\p{N} '’_-]{0,49}$/u.test(name);
  const name = [data.firstName, data.username].find(isName);
  return name === undefined ? "Hello," : `Hello ${name},`;
}

function link(site: URL, page: string, token?: string): string {
  const url = new URL(page, site);
  if (token !== undefined) {
    url.searchParams.set("token", token);
  }
  return url.href;
}

function ifItWasNotYou(site: URL): string[] {
  return ["If it was not you, reset your password at once:", link(site, "reset-password")];
}

function by(data: MfaData): string {
  return data.mfaMethod === undefined ? "" : ` by ${oneLine(data.mfaMethod, 50)}`;
}

function why(data: AccountData): string[] {
  return data.reason === undefined ? [] : [`Reason: ${oneLine(data.reason, 300)}`];
}

function oneLine(text: string, length: number): string {
  return Array.from(text.slice(0, 2 * length), (char) => (/[\p{C}\p{Z}]/u.test(char) ? " " : char))
    .slice(0, length)
    .join("")
    .trim();
}
