// Pictures of /docs in a headless Chromium: light, dark, and 400 px wide. Fails if the page logs an error, asks another
// host for anything, is wider than the window, or if a call that it tries is not answered with 200.
import puppeteer from "puppeteer-core";

const [gateway, out, executablePath] = process.argv.slice(2);
const pageUrl = `${gateway}/docs/`;
const operation = "#tag/order/GET/v1/order/customers/{userId}";
const problems = [];
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

async function open(name, hash, width, height, scheme) {
  const page = await browser.newPage();
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) problems.push(`${name}: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`${name}: ${error}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(gateway) && !url.startsWith("data:")) problems.push(`${name}: asks for ${url}`);
  });
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto(pageUrl + hash, { waitUntil: "networkidle0" });
  await page.waitForSelector(hash ? ".section" : ".markdown table");
  await new Promise((done) => setTimeout(done, 1500));
  return page;
}

for (const [name, width, scheme] of [["light", 1400, "light"], ["dark", 1400, "dark"], ["narrow", 400, "light"]]) {
  const page = await open(name, "", width, 2400, scheme);
  await page.screenshot({ path: `${out}/docs-${name}.png` });
  const cut = await page.evaluate(() => {
    const boxes = [...document.querySelectorAll(".markdown table, .markdown td")];
    return boxes.some((box) => box.getBoundingClientRect().right > innerWidth || box.scrollWidth > box.clientWidth + 1);
  });
  if (cut) problems.push(`${name}: the table of errors is cut off`);
  await page.close();
}

const page = await open("operation", operation, 1400, 1300, "light");
await page.screenshot({ path: `${out}/docs-operation.png` });
const press = (words) =>
  page.evaluate((words) => {
    const button = [...document.querySelectorAll("button")].find((button) => button.innerText.trim().startsWith(words));
    button?.click();
    return Boolean(button);
  }, words);
const answered = page.waitForResponse((response) => response.url().startsWith(`${gateway}/v1/`), { timeout: 10_000 });
answered.catch(() => {});
if (!(await press("Test Request"))) problems.push("no button tries the operation");
await new Promise((done) => setTimeout(done, 1500));
if (!(await press("Send"))) problems.push("no button sends the request");
const answer = await answered.catch(() => undefined);
if (answer?.status() !== 200) problems.push(`the tried call was answered with ${answer?.status()}`);
await new Promise((done) => setTimeout(done, 1000));
await page.screenshot({ path: `${out}/docs-answer.png` });

await browser.close();
for (const problem of problems) console.error(problem);
process.exit(problems.length > 0 ? 1 : 0);
