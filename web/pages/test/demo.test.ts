/** The page at `/`, in Chromium, against a running `quota-gate dev`. */

import { createRequire } from "node:module";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { launchOptions } from "../../chromium.mjs";

const url = process.env.QUOTA_GATE_URL ?? "";
/** Of the Redis behind it. */
const redisPids = (process.env.QUOTA_GATE_REDIS_PIDS ?? "").split(",").map(Number);
const axePath = createRequire(import.meta.url).resolve("axe-core");

let browser: Browser;
let context: BrowserContext;
/** What no page may do: ask elsewhere, or break its own policy. */
let wrongs: string[];

beforeAll(async () => {
    if (url === "") throw new Error("run these tests by `cargo test --test it web`");
    browser = await chromium.launch(launchOptions);
});

afterAll(() => browser.close());

beforeEach(async () => {
    wrongs = [];
    context = await browser.newContext({ locale: "en-US", viewport: { width: 800, height: 900 } });
    context.on("request", (request) => {
        if (!request.url().startsWith(url) && !request.url().startsWith("data:")) wrongs.push(request.url());
    });
    context.on("console", (message) => {
        // A denial is a 429, and Chromium tells of it.
        if (message.type() === "error" && !message.text().includes("429")) wrongs.push(message.text());
    });
});

afterEach(async () => {
    await context.close();
    expect(wrongs).toEqual([]);
});

async function open(user: string): Promise<Page> {
    const page = await context.newPage();
    await page.goto(url);
    await page.getByLabel("Signed in as").selectOption(user);
    // Until then another user's meter may be there.
    await page.locator(`[data-user=${user}] [role=meter]`).waitFor();
    return page;
}

/** How much is left, once it is so. */
async function left(page: Page, remaining: number): Promise<void> {
    await page.locator(`[role=meter][aria-valuenow="${remaining}"]`).waitFor();
}

async function remainingOf(page: Page): Promise<number> {
    return Number(await page.getByRole("meter").getAttribute("aria-valuenow"));
}

/** Once the last answer has ended. */
async function say(page: Page, text: string): Promise<void> {
    await page.locator("button[type=submit][aria-busy=false]").waitFor();
    await page.getByRole("textbox", { name: "Message" }).fill(text);
    await page.keyboard.press("Enter");
}

test("a chat streams, its quota goes down, and another tab sees it", async () => {
    const page = await open("pro-user");
    const other = await open("pro-user");
    const before = await remainingOf(page);
    await say(page, "Hello");
    await page.getByText("This is the local model").waitFor();
    await left(page, before - 1);
    await left(other, before - 1);
    await page.getByText("would: one by one.").waitFor();
    await page.getByText("1 AP used this month").waitFor();
    await other.getByText("1 AP used this month").waitFor();
});

test("an answer that is stopped was begun, and is charged", async () => {
    // Long enough for the slowest machine to stop it in time.
    await context.route("**/v1/chat/completions", async (route) => {
        const body = route.request().postDataJSON() as { model: string };
        await route.continue({ postData: { ...body, model: "local:words=5000" } });
    });
    const page = await open("plus-user");
    const before = await remainingOf(page);
    await say(page, "Hello");
    await page.getByText("This is").waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByText("Stopped.").waitFor();
    await left(page, before - 1);
});

test("the limit, the dialog, the upgrade, and on", async () => {
    const page = await open("free-user");
    await left(page, 100);
    await page.getByLabel("Model").selectOption("local-large");
    for (const remaining of [75, 50, 25, 0]) {
        await say(page, "A long question");
        await left(page, remaining);
    }
    await page.getByText("Your chat quota is used up. Your message is kept.").waitFor();
    await say(page, "One more");
    const dialog = page.getByRole("dialog");
    await dialog.getByText("Missing").waitFor();
    expect(await dialog.textContent()).toContain("With basic you have 300 AP a month, 200 more than now.");
    // In another tab the user upgrades; the dialog turns into the way on.
    const other = await open("free-user");
    await other.getByRole("button", { name: "Upgrade to basic" }).click();
    await dialog.getByRole("heading", { name: "You can go on" }).waitFor();
    await dialog.getByRole("button", { name: "Continue" }).click();
    expect(await page.getByRole("textbox", { name: "Message" }).inputValue()).toBe("One more");
    await page.keyboard.press("Enter");
    await left(page, 175);
    expect(await page.getByText("Your plan is basic.").count()).toBe(1);
});

test("by keyboard alone, in Chinese, at 320 pixels", async () => {
    const page = await open("basic-user");
    await page.setViewportSize({ width: 320, height: 700 });
    await page.getByLabel("Language").selectOption("zh-CN");
    const before = await remainingOf(page);
    await page.getByText(`剩余 ${before} / 300 AP`).waitFor();
    // From the top to the input, by Tab alone.
    await page.locator("body").click({ position: { x: 1, y: 1 } });
    for (let tabs = 0; tabs < 12 && (await page.evaluate("document.activeElement.tagName")) !== "TEXTAREA"; tabs++) {
        await page.keyboard.press("Tab");
    }
    await page.keyboard.type("你好");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await left(page, before - 1);
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(320);
});

test("while Redis is away the page says that its numbers may be behind, and recovers by itself", async () => {
    const page = await open("pro-user");
    const tell = (signal: NodeJS.Signals) => redisPids.forEach((pid) => process.kill(pid, signal));
    const lookAgain = () => page.evaluate("window.dispatchEvent(new Event('focus'))");
    // The page does not look twice within a second.
    await page.waitForTimeout(1100);
    tell("SIGSTOP");
    try {
        await lookAgain();
        await page.getByText("These numbers may be a moment behind.").waitFor();
    } finally {
        tell("SIGCONT");
    }
    await expect
        .poll(
            async () => {
                await page
                    .getByRole("button", { name: "Check again" })
                    .click({ timeout: 200 })
                    .catch(() => undefined);
                return page.getByText("These numbers may be a moment behind.").count();
            },
            { timeout: 20_000 },
        )
        .toBe(0);
    // A 502 or 503 on the way there is the network's, not the page's.
    wrongs = wrongs.filter((wrong) => !/50\d/.test(wrong));
});

test("axe finds nothing", async () => {
    const page = await open("pro-user");
    // The policy lets no script in; the test's own comes by the debugger.
    await page.evaluate(await (await import("node:fs/promises")).readFile(axePath, "utf8"));
    const found = (await page.evaluate("axe.run()")) as { violations: { id: string; nodes: { html: string }[] }[] };
    expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`)).toEqual([]);
});
