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

test("a token that is no longer valid leads back to the sign-in, and then to the same section", async () => {
    const page = await here.context.newPage();
    await page.goto(`${url}/admin`);
    await page.evaluate('sessionStorage.setItem("quota-gate-admin-token", "expired")');
    await page.goto(`${url}/admin#/status`);
    await page.reload();
    await page.getByText("Your token is no longer valid. Sign in again.").waitFor();
    expect(here.wrongs.splice(0).join()).toContain("401");
    await page.getByLabel("Administrator token").fill(adminToken);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Health" }).waitFor();
    // A token that loses the scope while the page is open ends the session too.
    await page.route("**/api/admin/status*", (route) => route.fulfill({ status: 403, json: { title: "no scope" } }));
    await page.getByText("Your token is no longer valid. Sign in again.").waitFor();
    expect(here.wrongs.splice(0).join()).toContain("403");
    expect(await page.evaluate('sessionStorage.getItem("quota-gate-admin-token")')).toBeNull();
});

test.each(["users/50%", "users/%E0%A4%A", "users/100%25", "%", "nothing/here"])(
    "#/%s shows a page, and leads on",
    async (part) => {
        const page = await here.context.newPage();
        const errors: Error[] = [];
        page.on("pageerror", (error) => errors.push(error));
        await page.addInitScript((token) => sessionStorage.setItem("quota-gate-admin-token", token), adminToken);
        await page.goto(`${url}/admin#/${part}`);
        await page.locator("main table, main h2, main [role=alert]").first().waitFor();
        await page.getByRole("link", { name: "Users", exact: true }).click();
        await page.getByLabel("User ID starts with").waitFor();
        await page.evaluate("location.hash = '#/users/20%'");
        await page.locator("main h2, main [role=alert]").first().waitFor();
        expect(errors).toEqual([]);
        here.wrongs = here.wrongs.filter((wrong) => !/40\d/.test(wrong));
    },
);

test("an unexpected answer breaks one section, not the page", async () => {
    const page = await open("users");
    await page.route("**/api/admin/rollout*", (route) => route.fulfill({ json: {} }));
    await page.getByRole("link", { name: "Rollout" }).click();
    await page.getByText("This section cannot be shown:").waitFor();
    await page.getByRole("link", { name: "Changes" }).click();
    await page.getByRole("heading", { name: "Changes" }).waitFor();
    // React reports the error.
    expect(here.wrongs.splice(0).length).toBeGreaterThan(0);
});

test("what is unknown while Redis is unavailable is not shown as 0", async () => {
    const page = await here.context.newPage();
    await page.addInitScript((token) => sessionStorage.setItem("quota-gate-admin-token", token), adminToken);
    type Partition = { streamLength: number | null; flushLag: object | null };
    let change = (partitions: Partition[]): Partition[] =>
        partitions.map((partition) => ({ ...partition, streamLength: null, flushLag: null }));
    await page.route("**/api/admin/status*", async (route) => {
        const answer = await route.fetch();
        const status = (await answer.json()) as { partitions: Partition[] };
        await route.fulfill({ json: { ...status, partitions: change(status.partitions), redisAnswers: false } });
    });
    await page.goto(`${url}/admin#/status`);
    const facts = ["Events not yet in Postgres", "Age of the oldest (seconds)", "Stream entries"];
    await page.locator(".facts").first().waitFor();
    for (const name of facts) expect(await fact(page, name), name).toBe("unknown");
    expect(await fact(page, "Generation")).toMatch(/^\d+$/);
    // A sum of which a part is unknown is unknown.
    change = (partitions) => partitions.map((one, at) => (at === 0 ? { ...one, streamLength: null } : one));
    await expect.poll(() => fact(page, "Events not yet in Postgres"), { timeout: 20_000 }).toMatch(/^\d+$/);
    expect(await fact(page, "Stream entries")).toBe("unknown");
    change = () => [];
    for (const name of [...facts, "Generation"])
        await expect.poll(() => fact(page, name), { message: name, timeout: 20_000 }).toBe("unknown");

    await page.route("**/api/admin/users/pro-user?*", async (route) => {
        const answer = await route.fetch();
        const user = (await answer.json()) as { quota: object };
        const json = { ...user, quota: { ...user.quota, source: "postgres" }, holds: [], comparison: null };
        await route.fulfill({ json });
    });
    await page.evaluate("location.hash = '#/users/pro-user'");
    await page.getByText("Unknown while Redis is unavailable.").waitFor();
    expect(await fact(page, "Held (AP)")).toBe("unknown");
    expect(await page.getByText("No open holds.").count()).toBe(0);

    await page.route("**/api/admin/changes?*", async (route) => {
        const answer = await route.fetch();
        const change = { at: "2026-11-23T10:00:00Z", by: "x", reason: "", userUuid: null, effectivePeriod: null };
        const none = { ap: null, percentage: null, mode: null, levelBefore: null, levelAfter: null, hold: null };
        const changes = ["hold_released", "rollout", "level"].map((kind) => ({ ...change, ...none, kind }));
        await route.fulfill({ json: { ...(await answer.json()), changes } });
    });
    await page.evaluate("location.hash = '#/changes'");
    await page.getByRole("cell", { name: "Hold released: unknown AP" }).waitFor();
    await page.getByRole("cell", { name: "Rollout: unknown, unknown %" }).waitFor();
    await page.getByRole("cell", { name: "unknown → unknown" }).waitFor();
});

test("levels that cannot be read are an error, not an empty list", async () => {
    const page = await here.context.newPage();
    await page.addInitScript((token) => sessionStorage.setItem("quota-gate-admin-token", token), adminToken);
    await page.route("**/api/admin/status*", (route) => route.fulfill({ status: 503, json: { title: "no levels" } }));
    for (const part of ["users", "users/pro-user"]) {
        await page.goto(`${url}/admin#/${part}`);
        await page.getByText("no levels").waitFor();
        await page.goto("about:blank");
    }
    here.wrongs = here.wrongs.filter((wrong) => !wrong.includes("503"));
});

test("a comparison that failed is over, and shows no old result", async () => {
    const page = await open("status");
    let pages = 0;
    await page.route("**/api/admin/drift*", (route) =>
        pages++ === 0
            ? route.fulfill({ json: { users: 2, differences: [], next: "a" } })
            : route.fulfill({ status: 503, json: { title: "Redis is unavailable" } }),
    );
    const compare = page.getByRole("button", { name: "Compare now" });
    await compare.click();
    await page.getByText("Request failed: Redis is unavailable").waitFor();
    expect(await page.getByText("Comparing…").count()).toBe(0);
    expect(await compare.isEnabled()).toBe(true);
    await compare.click();
    await expect.poll(() => pages).toBe(3);
    await page.getByText("Request failed: Redis is unavailable").waitFor();
    expect(await page.getByText("users compared").count()).toBe(0);
    here.wrongs = here.wrongs.filter((wrong) => !wrong.includes("503"));
});

test.each(["en-US", "zh-CN"])("the labels of the chart are complete at any size: %s", async (locale) => {
    const context = await newContext(here, { locale });
    const page = await context.newPage();
    await page.addInitScript((token) => sessionStorage.setItem("quota-gate-admin-token", token), adminToken);
    let most = 0;
    await page.route("**/api/admin/usage*", async (route) => {
        const total = { messages: most, ap: most, tokens: most, overage: 0 };
        const rows = [{ ...total, day: "2026-11-30", membershipLevel: null, model: "local" }];
        await route.fulfill({ json: { from: "2026-11-01", to: "2026-11-30", timeZone: "UTC", total, rows } });
    });
    for (most of [7, 950, 12_345, 999_999, 1_234_567, 40_000_000, 7_654_321_000, 999_999_999_999]) {
        await page.goto(`${url}/admin#/usage`);
        await page.locator("svg text").first().waitFor();
        const outside = await page.evaluate(`[...document.querySelectorAll("svg text")].filter((text) => {
            const [inner, outer] = [text.getBoundingClientRect(), text.closest("svg").getBoundingClientRect()];
            return inner.left < outer.left || inner.right > outer.right;
        }).map((text) => text.textContent)`);
        expect(outside, String(most)).toEqual([]);
        await page.goto("about:blank");
    }
    await context.close();
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
    const form = admin.getByRole("region", { name: "Change level" });
    await admin.getByLabel("New level").selectOption("plus");
    await form.getByLabel("Reason").fill("a goodwill gesture");
    await form.getByRole("button", { name: "Preview" }).click();
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
    await form.getByLabel("Reason").fill("a mistake");
    await form.getByRole("button", { name: "Preview" }).click();
    await admin.getByText("Takes effect immediately.").waitFor();
    await admin.getByRole("button", { name: "Apply" }).click();
    await left(chat, remaining);
    await chat.getByText("Your plan is basic.").waitFor();
});

test("an own quota and a block are previewed, recorded with their reasons, and shown", async () => {
    const user = `own-${Date.now()}`;
    const message = { userUuid: user, sessionId: "s", ap: 1 };
    await ask("/api/chat/quota/consume", serviceToken, message);
    const admin = await open(`users/${user}`);
    const form = admin.getByRole("region", { name: "Own quota or block" });
    const make = async (action: string, reason: string) => {
        await form.getByRole("combobox").selectOption(action);
        if (action === "own") await form.getByRole("spinbutton").fill("500");
        await form.getByLabel("Reason").fill(reason);
        await form.getByRole("button", { name: "Preview" }).click();
        await form.getByRole("group", { name: "Preview" }).waitFor();
        await form.getByRole("button", { name: "Apply" }).click();
        await admin.getByRole("row", { name: new RegExp(`${reason}$`) }).waitFor();
    };
    await make("own", "a contract");
    await expect.poll(() => fact(admin, "Used (AP)")).toBe("1 / 500 (own)");
    await make("block", "an abuse");
    await expect.poll(() => fact(admin, "Blocked")).toBe("yes");
    const refused = await ask<{ code: string }>("/api/chat/quota/consume", serviceToken, message);
    expect(refused.code).toBe("USER_BLOCKED");
    await make("unblock", "an apology");
    // The form begins anew with each change of the user.
    await expect.poll(() => admin.locator(".facts dt", { hasText: "Blocked" }).count()).toBe(0);
    await make("unlimited", "a colleague");
    await expect.poll(() => fact(admin, "Used (AP)")).toBe("1 / Unlimited");
    await make("level", "all as before");
    await expect.poll(() => fact(admin, "Used (AP)")).toBe("1 / 100");
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

test("AP are given and voided with a reason, and the user's page lists them", async () => {
    const admin = await open("users/pro-user");
    const panel = admin.getByRole("region", { name: "Grants" });
    await panel.getByText("No grants.").waitFor();
    await panel.getByRole("button", { name: "Give AP…" }).click();
    await panel.getByLabel("AP", { exact: true }).fill("70");
    await panel.getByLabel("Expires in days").fill("30");
    await panel.getByLabel("Reason").fill("a goodwill gift");
    await panel.getByRole("button", { name: "Give now" }).click();
    await panel.getByRole("row", { name: /manual 70 0 70 .* live/ }).waitFor();
    await panel.getByRole("button", { name: "Void…" }).click();
    await panel.getByText("The user loses the 70 AP that are left.").waitFor();
    await panel.getByLabel("Reason").fill("a mistake");
    await panel.getByRole("button", { name: "Void now" }).click();
    await panel.getByRole("row", { name: /manual 70 0 70 .* voided/ }).waitFor();
    await admin.getByRole("row", { name: /Granted: 70 AP a goodwill gift/ }).waitFor();
    await admin.getByRole("row", { name: /voided: 70 AP a mistake/ }).waitFor();
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

test("a price replay shows who would have been denied, and downloads the same as a file", async () => {
    for (const ap of [3, 4]) {
        await ask("/api/chat/quota/consume", serviceToken, { userUuid: "plus-user", sessionId: "replayed", ap });
    }
    const messages = async () =>
        (await ask<{ total: { messages: number } }>("/api/admin/usage?user=plus-user&groupBy=session", adminToken))
            .total.messages;
    await expect.poll(messages).toBeGreaterThanOrEqual(2);
    const page = await open("replay");
    // The time zone of the gate is UTC.
    const today = new Date().toISOString().slice(0, 10);
    await page
        .locator("input[type=date]")
        .first()
        .fill(`${today.slice(0, 7)}-01`);
    await page.locator("input[type=date]").last().fill(today);
    const replay = page.getByRole("button", { name: "Replay", exact: true });
    await replay.click();
    await page.getByText("No message would have been denied.").waitFor();

    const plus = page.getByRole("group", { name: "plus", exact: true });
    await plus.getByLabel("Quota (AP)").fill("0");
    await plus.getByLabel("Windows").fill("80 tokens every 5h");
    await replay.click();
    await page.getByText("Not a window: “80 tokens every 5h”.").waitFor();
    await plus.getByLabel("Windows").fill("1 AP every 5h, 20 requests every 1m");
    await replay.click();
    await page
        .getByRole("group", { name: "Denials by limit" })
        .getByRole("row", { name: /plus quota 1 \d/ })
        .waitFor();
    await page
        .getByRole("group", { name: "Denials by limit" })
        .getByRole("row", { name: /plus 5h ap 1 \d/ })
        .waitFor();
    await page
        .getByRole("group", { name: "First denials by day" })
        .getByRole("row", { name: /plus .* 1/ })
        .waitFor();
    await page.getByRole("group", { name: "Most affected users" }).getByRole("link", { name: "plus-user" }).waitFor();
    const [download] = await Promise.all([
        page.waitForEvent("download"),
        page.getByRole("button", { name: "Download CSV" }).click(),
    ]);
    let csv = "";
    for await (const piece of await download.createReadStream()) csv += String(piece);
    expect(csv.split("\n")[0]).toMatch(/^section,level,name,users,messages,ap,overage,proposedAp/);
    expect(csv).toMatch(/^limit,plus,5h ap,,,,,,,1,\d+,$/m);
    expect(csv).toMatch(/^user,plus,plus-user,/m);

    // A proposal that the gate refuses is explained.
    await page.getByRole("button", { name: "Add a price" }).click();
    await page.getByLabel("Model or pattern").fill("gpt-4o");
    await page.getByLabel("AP per million input tokens").fill("2.5");
    await page.getByLabel("output", { exact: true }).fill("10");
    await replay.click();
    await page.getByText("default is missing").waitFor();
    here.wrongs = here.wrongs.filter((wrong) => !wrong.includes("400"));
    await page.getByLabel("Model or pattern").fill("default");
    await replay.click();
    await page.getByRole("group", { name: "Denials by limit" }).waitFor();
});

test.each(["users", "users/pro-user", "usage", "replay", "status", "rollout", "changes"])(
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
            await page.locator("main table, main .facts, main fieldset").first().waitFor();
            expect(await violations(page), `${locale} ${colorScheme}`).toEqual([]);
            expect(await page.evaluate("document.documentElement.scrollWidth"), `${locale} ${colorScheme}`).toBe(320);
            await context.close();
        }
    },
);
