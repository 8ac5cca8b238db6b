/** One Chromium per test file, and one context per test, which records what no page may do. */

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { launchOptions } from "../../chromium.mjs";

export const url = process.env.QUOTA_GATE_URL ?? "";
const axePath = createRequire(import.meta.url).resolve("axe-core");

interface World {
    browser: Browser;
    context: BrowserContext;
    /** Requests to other origins, and console errors such as policy violations. */
    wrongs: string[];
}

/** State that the tests of a file share. */
export function world(): World {
    const world = { wrongs: [] as string[] } as World;
    beforeAll(async () => {
        if (url === "") throw new Error("run these tests with `cargo test --test it web`");
        world.browser = await chromium.launch(launchOptions);
    });
    afterAll(() => world.browser.close());
    beforeEach(async () => {
        world.wrongs = [];
        world.context = await newContext(world);
    });
    afterEach(async () => {
        await world.context.close();
        expect(world.wrongs).toEqual([]);
    });
    return world;
}

export async function newContext(world: World, options: object = {}): Promise<BrowserContext> {
    const context = await world.browser.newContext({
        locale: "en-US",
        viewport: { width: 800, height: 900 },
        ...options,
    });
    context.on("request", (request) => {
        if (!request.url().startsWith(url) && !request.url().startsWith("data:")) world.wrongs.push(request.url());
    });
    context.on("console", (message) => {
        // A denial is a 429, which Chromium logs as an error.
        if (message.type() === "error" && !message.text().includes("429")) world.wrongs.push(message.text());
    });
    return context;
}

export async function violations(page: Page): Promise<string[]> {
    // The policy blocks injected scripts; the debugger runs axe.
    await page.evaluate(await readFile(axePath, "utf8"));
    const found = (await page.evaluate("axe.run()")) as { violations: { id: string; nodes: { html: string }[] }[] };
    return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
}

export async function openChat(context: BrowserContext, user: string): Promise<Page> {
    const page = await context.newPage();
    await page.goto(url);
    await page.getByLabel("Signed in as").selectOption(user);
    // Until then the page may show another user's meter.
    await page.locator(`[data-user=${user}] [role=meter]`).waitFor();
    return page;
}

/** Waits until the meter shows `remaining`. */
export async function left(page: Page, remaining: number): Promise<void> {
    await page.locator(`[role=meter][aria-valuenow="${remaining}"]`).waitFor();
}

export async function remainingOf(page: Page): Promise<number> {
    return Number(await page.getByRole("meter").getAttribute("aria-valuenow"));
}

/** Sends a message once the previous answer has ended. */
export async function say(page: Page, text: string): Promise<void> {
    await page.locator("button[type=submit][aria-busy=false]").waitFor();
    await page.getByRole("textbox", { name: "Message" }).fill(text);
    await page.keyboard.press("Enter");
}
