import assert from "node:assert/strict";
import { test } from "node:test";
import { type Content, render, TEMPLATE_NAMES } from "../src/templates.js";

const SITE = new URL("https://shop.example/");
const CREATED_AT = "2026-11-02T17:05:10.250Z";

test("every template greets, says when, and differs from the others", () => {
  const data = { userId: "u-1", firstName: "Zoë", mfaMethod: "TOTP", reason: "unpaid\r\ninvoices" };
  const messages = TEMPLATE_NAMES.map((template) => render({ template, data, createdAt: CREATED_AT }, SITE));
  assert.equal(new Set(messages.map(({ subject }) => subject)).size, 9);
  for (const { subject, text } of messages) {
    assert.doesNotMatch(subject, /[\r\n]/);
    assert.match(text, /^Hello Zoë,\n\n\S/);
    assert.doesNotMatch(text, /undefined|\r/);
  }
  const texts = messages.map(({ text }) => text).join("");
  assert.match(texts, /authentication by TOTP was disabled on 2026-11-02 at 17:05 UTC/);
  assert.match(texts, /Reason: unpaid {2}invoices/);
});

test("a name is used only if it cannot be read as something else", () => {
  for (const [data, greeting] of [
    [{ firstName: "Jean-Luc d’Ü" }, "Hello Jean-Luc d’Ü,"],
    [{ username: "ada_1" }, "Hello ada_1,"],
    [{ firstName: "Win now: https://evil.example", username: "evil.example" }, "Hello,"],
    [{ firstName: "Ada,\n\nYour password is wrong" }, "Hello,"],
    [{ firstName: "a".repeat(1 << 20) }, "Hello,"],
    [{ firstName: "" }, "Hello,"],
  ] as const) {
    const content: Content = { template: "welcome", data: { userId: "u-1", ...data }, createdAt: CREATED_AT };
    assert.equal(render(content, SITE).text.split("\n")[0], greeting);
  }
});

test("the link of a reset carries the token", () => {
  const reset = (resetTokenIdentifier: string) =>
    render({ template: "password_reset", data: { userId: "u-1", resetTokenIdentifier }, createdAt: CREATED_AT }, SITE)
      .text;
  assert.match(reset("a&b=ü \n"), /\nhttps:\/\/shop\.example\/reset-password\?token=a%26b%3D%C3%BC\+%0A\n/);
});
