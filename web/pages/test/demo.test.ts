/** The page at `/`, in Chromium, against a running `quota-gate dev`. */

import { expect, test } from "vitest";
import { left, openChat, remainingOf, say, url, violations, world } from "./browser.js";

/** Process IDs of the gate's Redis. */
const redisPids = (process.env.QUOTA_GATE_REDIS_PIDS ?? "").split(",").map(Number);
const here = world();
const open = (user: string) => openChat(here.context, user);

test("an answer streams, the quota decreases, and another tab shows it", async () => {
    const page = await open("pro-user");
    const other = await open("pro-user");
    const before = await remainingOf(page);
    await say(page, "Hello");
    await page.getByText("This is the local model").waitFor();
    await left(page, before - 1);
    await left(other, before - 1);
    await page.getByText("a large model: word by word.").waitFor();
    await page.getByText("1 AP used this month").waitFor();
    await other.getByText("1 AP used this month").waitFor();
});

test("an answer that is stopped after it began is charged", async () => {
    // Long enough to be stopped in time on a slow machine.
    await here.context.route("**/v1/chat/completions", async (route) => {
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

test("an answer that breaks off is not said to be free", async () => {
    await here.context.route("**/v1/chat/completions", (route) =>
        route.fulfill({
            contentType: "text/event-stream",
            body: 'data: {"choices":[{"delta":{"content":"Once"}}]}\n\n',
        }),
    );
    const page = await open("plus-user");
    await say(page, "Tell me a story");
    await page.getByText("The answer broke off.").waitFor();
    const text = (await page.locator("body").textContent()) ?? "";
    expect(text).toContain("Once");
    expect(text).toContain("fails before its first word is free");
    expect(text).not.toMatch(/failed answer is free|Nothing was charged/);
});

test("the user reaches the limit, upgrades and continues", async () => {
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
    await dialog.getByRole("button", { name: "Upgrade to basic (300 AP a month)" }).waitFor();
    // The user upgrades in another tab; the dialog then offers to continue.
    const other = await open("free-user");
    await other.getByRole("button", { name: "Upgrade to basic" }).click();
    await dialog.getByRole("heading", { name: "You can continue" }).waitFor();
    await dialog.getByRole("button", { name: "Continue" }).click();
    // The kept message is sent.
    await left(page, 175);
    expect(await page.getByText("Your plan is basic.").count()).toBe(1);
});

test("the user runs out of a window, uses a cheaper model, buys a pack and continues", async () => {
    const page = await open("basic-user");
    const inWindow = (ap: number) => page.getByText(`${ap} of 75 AP left for 5 hours`).waitFor();
    const dialog = page.getByRole("dialog");
    const model = page.getByLabel("Model");
    await say(page, "Hello");
    await inWindow(74);
    await model.selectOption("local-large");
    await say(page, "A long question");
    await inWindow(49);
    await say(page, "Another one");
    await inWindow(24);
    await say(page, "A cheap one, then");
    await dialog.getByText("Try again at").waitFor();
    await dialog.getByRole("button", { name: "Upgrade to plus (1,000 AP a month)" }).waitFor();
    expect(await violations(page)).toEqual([]);
    // The kept message is sent to the cheaper model.
    await dialog.getByRole("button", { name: "Use local (1 AP)" }).click();
    await inWindow(23);
    await page.locator(".turns li").filter({ hasText: "A cheap one, then" }).waitFor();
    await model.selectOption("local-large");
    await say(page, "One more");
    await dialog.getByRole("button", { name: "Buy a pack of 50 AP" }).click();
    // The kept message is sent. The window pays what it can, the pack the rest; the meter shows both.
    await page.getByText("48 extra AP").waitFor();
    await inWindow(0);
    await page.locator(".turns li").filter({ hasText: "One more" }).waitFor();
    await left(page, 225);
});

test("works by keyboard only, in Chinese, at 320 pixels", async () => {
    const page = await open("plus-user");
    await page.setViewportSize({ width: 320, height: 700 });
    await page.getByLabel("Language").selectOption("zh-CN");
    const before = await remainingOf(page);
    await page.getByText(`剩余 ${before} / 1,000 AP`).waitFor();
    // Tab from the top to the input.
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

test("Enter in an input method accepts the word; the next Enter sends", async () => {
    const page = await open("plus-user");
    const before = await remainingOf(page);
    const input = page.getByRole("textbox", { name: "Message" });
    await input.focus();
    // Simulates an input method through the debugger.
    const chromium = await here.context.newCDPSession(page);
    const compose = (text: string) =>
        chromium.send("Input.imeSetComposition", { text, selectionStart: text.length, selectionEnd: text.length });
    for (const typed of ["n", "ni", "nihao", "你好"]) await compose(typed);
    expect(await input.inputValue()).toBe("你好");
    await page.keyboard.press("Enter");
    expect(await page.locator(".turns li").count()).toBe(0);
    expect(await remainingOf(page)).toBe(before);
    await chromium.send("Input.insertText", { text: "你好" });
    expect((await input.inputValue()).trimEnd()).toBe("你好");
    await page.keyboard.press("Enter");
    await left(page, before - 1);
    await page.locator(".turns li").filter({ hasText: "你好" }).first().waitFor();
});

test("while Redis is unavailable, the page says that its numbers may be old; then it recovers", async () => {
    const page = await open("pro-user");
    const tell = (signal: NodeJS.Signals) => redisPids.forEach((pid) => process.kill(pid, signal));
    const lookAgain = () => page.evaluate("window.dispatchEvent(new Event('focus'))");
    // The page refreshes at most once per second.
    await page.waitForTimeout(1100);
    tell("SIGSTOP");
    try {
        await lookAgain();
        await page.getByText("These numbers may be slightly out of date.").waitFor();
    } finally {
        tell("SIGCONT");
    }
    // Nothing is clicked, and nothing about the user changes.
    await page.getByText("These numbers may be slightly out of date.").waitFor({ state: "detached" });
    // Responses 502 and 503 are expected here, not page errors.
    here.wrongs = here.wrongs.filter((wrong) => !/50\d/.test(wrong));
});

test("a session that expires is renewed, for the quota, its stream and the next message", async () => {
    let sessions = 0;
    await here.context.route("**/api/demo/session", async (route) => {
        const { user } = route.request().postDataJSON() as { user: string };
        if (sessions++ === 0) await route.fulfill({ json: { user, jwt: "expired" } });
        else await route.continue();
    });
    const page = await here.context.newPage();
    await page.goto(url);
    await page.getByRole("meter").waitFor();
    const before = await remainingOf(page);
    // The next message is sent with an expired JWT too.
    await page.route(
        "**/v1/chat/completions",
        (route) => route.fulfill({ status: 401, json: { error: { code: "UNAUTHENTICATED", message: "expired" } } }),
        { times: 1 },
    );
    await say(page, "Hello");
    await left(page, before - 1);
    await page.getByText("This is the local model").waitFor();
    here.wrongs = here.wrongs.filter((wrong) => !wrong.includes("401"));
});

test("axe finds no violations", async () => {
    const page = await open("pro-user");
    expect(await violations(page)).toEqual([]);
});
