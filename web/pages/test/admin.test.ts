/** The page at `/admin`, in Chromium, against a running `quota-gate dev`. */

import type { BrowserContext, Page } from "playwright";
import { expect, test } from "vitest";
import { left, newContext, openChat, remainingOf, say, url, violations, world } from "./browser.js";

const adminToken = process.env.QUOTA_GATE_ADMIN_TOKEN ?? "";
const serviceToken = process.env.QUOTA_GATE_SERVICE_TOKEN ?? "";
const here = world();

/** Opens a section, signed in. */
async function open(part: string, context: BrowserContext = here.context): Promise<Page> {
    const page = await context.newPage();
    await page.addInitScript((token) => sessionStorage.setItem("quota-gate-admin-token", token), adminToken);
    await page.goto(`${url}/admin#/${part}`);
    await page.locator("main table, main h2").first().waitFor();
    return page;
}

async function ask<T>(path: string, token: string, body?: unknown): Promise<T> {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const request = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    return (await (await fetch(url + path, { headers, ...request })).json()) as T;
}

/** The value shown under a name. */
async function fact(page: Page, name: string): Promise<string | null> {
    return page
        .locator(".facts > div")
        .filter({ has: page.locator("dt", { hasText: name }) })
        .first()
        .locator("dd")
        .textContent();
}

test("only an administrator token opens the page", async () => {
    const page = await here.context.newPage();
    await page.goto(`${url}/admin`);
    await page.getByLabel("Administrator token").fill(serviceToken);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("Invalid token or missing admin scope.").waitFor();
    expect(here.wrongs.splice(0).join()).toContain("403");
    await page.getByLabel("Administrator token").fill(adminToken);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByLabel("User ID starts with").fill("pr");
    await page.getByRole("link", { name: "free-user" }).waitFor({ state: "detached" });
    await page.getByRole("link", { name: "pro-user" }).click();
    await page.getByRole("heading", { name: "pro-user" }).waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Administrator token").waitFor();
});

test("every message of a chat is counted", async () => {
    const before = await ask<{ total: { messages: number } }>("/api/admin/usage?groupBy=model&model=local", adminToken);
    const chat = await openChat(here.context, "plus-user");
    const remaining = await remainingOf(chat);
    for (const message of [1, 2, 3]) {
        await say(chat, `Message ${message}`);
        await left(chat, remaining - message);
    }
    await chat.locator("button[type=submit][aria-busy=false]").waitFor();
    const admin = await open("users/plus-user");
    const sent = admin.getByRole("group", { name: "Messages" }).locator("tbody tr");
    await expect.poll(() => sent.filter({ hasText: "charged after the answer" }).count()).toBeGreaterThanOrEqual(3);
    expect(await sent.first().textContent()).toMatch(/local.*demo/);
    await expect.poll(() => fact(admin, "Used (AP)")).toBe(`${1000 - remaining + 3} / 1,000`);
    await admin.getByText("No difference.").waitFor();

    const usage = await open("usage");
    const rows = usage.getByRole("group", { name: "Usage" }).locator("tbody tr");
    const wanted = String(before.total.messages + 3);
    await expect
        .poll(() =>
            rows
                .filter({ has: usage.getByRole("cell", { name: "local", exact: true }) })
                .first()
                .locator("td")
                .nth(1)
                .textContent(),
        )
        .toBe(wanted);
    await usage.getByLabel("Group by").selectOption("level");
    await rows.filter({ hasText: "plus" }).first().waitFor();
    expect(await usage.locator("svg rect title").count()).toBeGreaterThan(0);
    const [download] = await Promise.all([
        usage.waitForEvent("download"),
        usage.getByRole("button", { name: "Download CSV" }).click(),
    ]);
    const stream = await download.createReadStream();
    let csv = "";
    for await (const piece of stream) csv += String(piece);
    expect(csv.split("\n")[0]).toBe("day,sessionId,membershipLevel,model,messages,ap,overage,tokens");
    expect(csv).toContain(",plus,");
});

test("a level change is previewed, recorded with its reason, and shown to the user without a reload", async () => {
    const chat = await openChat(here.context, "basic-user");
    const remaining = await remainingOf(chat);
    await chat.getByText("Your plan is basic.").waitFor();
    const admin = await open("users/basic-user");
    await admin.getByLabel("New level").selectOption("plus");
    await admin.getByLabel("Reason").fill("a goodwill gesture");
    await admin.getByRole("button", { name: "Preview" }).click();
    const preview = admin.getByRole("group", { name: "Preview" });
    await preview
        .getByRole("row", { name: `Remaining (AP) ${remaining} ${(remaining + 700).toLocaleString("en-US")}` })
        .waitFor();
    await chat.getByText("Your plan is basic.").waitFor();
    await admin.getByRole("button", { name: "Apply" }).click();
    await left(chat, remaining + 700);
    await chat.getByText("Your plan is plus.").waitFor();
    const changes = admin.getByRole("group", { name: "Changes" });
    await changes.getByRole("row", { name: /admin basic → plus a goodwill gesture/ }).waitFor();
    const all = await open("changes");
    await all.getByRole("row", { name: /basic-user basic → plus a goodwill gesture/ }).waitFor();
    // Change back, effective immediately.
    await admin.getByLabel("New level").selectOption("basic");
    await admin.getByLabel("Apply immediately, even a downgrade").check();
    await admin.getByLabel("Reason").fill("a mistake");
    await admin.getByRole("button", { name: "Preview" }).click();
    await admin.getByText("Takes effect immediately.").waitFor();
    await admin.getByRole("button", { name: "Apply" }).click();
    await left(chat, remaining);
    await chat.getByText("Your plan is basic.").waitFor();
});

test("an unsettled hold is released, and the user's page shows its AP again", async () => {
    const body = { userUuid: "pro-user", sessionId: "s", ap: 40, ttlSeconds: 900 };
    const chat = await openChat(here.context, "pro-user");
    const remaining = await remainingOf(chat);
    await ask("/api/chat/quota/reservations", serviceToken, body);
    await left(chat, remaining - 40);
    const admin = await open("users/pro-user");
    await admin.getByRole("button", { name: "Release…" }).click();
    await admin.getByRole("region", { name: "Open holds" }).getByLabel("Reason").fill("its worker is gone");
    await admin.getByRole("button", { name: "Release now" }).click();
    await left(chat, remaining);
    await admin.getByText("No open holds.").waitFor();
    await admin.getByRole("row", { name: /Hold released: 40 AP its worker is gone/ }).waitFor();
});

test("the status page reports no problems, and the stores agree", async () => {
    const page = await open("status");
    await page.getByText("All systems operational").waitFor();
    await page.getByRole("button", { name: "Compare now" }).click();
    await page.getByText(/users compared, 0 differ\./).waitFor();
    expect(await fact(page, "Redis")).toBe("available");
});

test("a rollout change is listed with its reason", async () => {
    const page = await open("rollout");
    await page.getByLabel("Mode").selectOption("shadow");
    await page.getByLabel("Percentage").fill("12.5");
    await page.getByLabel("Reason").fill("a trial");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.getByRole("row", { name: /admin a trial shadow 12.5 %/ }).waitFor();
    expect(await fact(page, "Percentage")).toBe("12.5 %");
    await page.getByLabel("Mode").selectOption("enforce");
    await page.getByLabel("Percentage").fill("100");
    await page.getByLabel("Reason").fill("back");
    await page.getByRole("button", { name: "Apply" }).click();
    await page.getByRole("row", { name: /admin back enforce 100 %/ }).waitFor();
});

test.each(["users", "users/pro-user", "usage", "status", "rollout", "changes"])(
    "%s: axe finds no violations in either language and theme; 320 pixels are enough",
    async (part) => {
        for (const [locale, colorScheme] of [
            ["en-US", "light"],
            ["en-US", "dark"],
            ["zh-CN", "light"],
            ["zh-CN", "dark"],
        ]) {
            const viewport = { width: 320, height: 700 };
            const context = await newContext(here, { locale, colorScheme, viewport });
            const page = await open(part, context);
            await page.locator("main table, main .facts").first().waitFor();
            expect(await violations(page), `${locale} ${colorScheme}`).toEqual([]);
            expect(await page.evaluate("document.documentElement.scrollWidth"), `${locale} ${colorScheme}`).toBe(320);
            await context.close();
        }
    },
);
