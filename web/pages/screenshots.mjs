/**
 * Takes the screenshots of the administrator page for docs/images. Run it in web/ with the URL and tokens of a fresh
 * `quota-gate dev`: `node pages/screenshots.mjs URL ADMIN_TOKEN SERVICE_TOKEN`. Check the images afterwards.
 */

import { fileURLToPath } from "node:url";
import { chromium } from "playwright";
import { launchOptions } from "../chromium.mjs";

const images = fileURLToPath(new URL("../../docs/images/", import.meta.url));
const [url, adminToken, serviceToken] = process.argv.slice(2);

/** Creates sample data. */
async function send(path, token, method, body) {
    const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
    const response = await fetch(url + path, { method, headers, body: JSON.stringify(body) });
    if (!response.ok && response.status !== 429) throw new Error(`${path}: ${await response.text()}`);
}
const models = ["gpt-4o", "gpt-4o-mini", "claude-sonnet", "local"];
for (let n = 0; n < 120; n++) {
    const userUuid = ["free-user", "basic-user", "plus-user", "pro-user"][n % 4];
    const model = models[(n * n) % models.length];
    const message = { userUuid, sessionId: `chat-${n % 7}`, ap: 1 + (n % 3), tokens: 40 * n, model };
    await send("/api/chat/quota/consume", serviceToken, "POST", message);
}
await send("/api/chat/quota/reservations", serviceToken, "POST", {
    userUuid: "free-user",
    sessionId: "chat-1",
    ap: 5,
    ttlSeconds: 900,
});
await send("/api/admin/users/free-user/level", adminToken, "PUT", {
    membershipLevel: "basic",
    reason: "support voucher",
});

const browser = await chromium.launch(launchOptions);

async function take(name, part, { locale = "en-US", width = 1000, colorScheme = "light", before } = {}) {
    const context = await browser.newContext({ locale, colorScheme, viewport: { width, height: 800 } });
    await context.addInitScript((token) => sessionStorage.setItem("quota-gate-admin-token", token), adminToken);
    const page = await context.newPage();
    await page.goto(`${url}/admin#/${part}`);
    await page.locator("main table, main svg").first().waitFor();
    await before?.(page);
    await page.waitForTimeout(500);
    await page.screenshot({ path: `${images}${name}.png`, fullPage: true });
    await context.close();
}

const preview = async (page) => {
    await page.getByLabel("New level").selectOption("pro");
    await page.getByLabel("Reason").last().fill("in-store purchase");
    await page.getByRole("button", { name: "Preview" }).click();
    await page.getByRole("button", { name: "Apply" }).waitFor();
};
await take("admin-users", "users");
await take("admin-user", "users/free-user", { before: preview });
await take("admin-usage", "usage");
await take("admin-usage-dark-zh-CN", "usage", { locale: "zh-CN", colorScheme: "dark" });
await take("admin-status", "status");
await take("admin-rollout-dark", "rollout", { colorScheme: "dark" });
await take("admin-user-zh-CN-320", "users/free-user", { locale: "zh-CN", width: 320 });
await browser.close();
