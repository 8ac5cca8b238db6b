/** Takes the screenshots in docs/images: `npm run screenshots --workspace react`. Review them afterwards. */

import { fileURLToPath } from "node:url";
import { chromium } from "playwright";
import { createServer } from "vite";
import { launchOptions } from "../../chromium.mjs";

const images = fileURLToPath(new URL("../../../docs/images/", import.meta.url));
const server = await createServer({ root: fileURLToPath(new URL(".", import.meta.url)), server: { port: 0 } });
await server.listen();
const { port } = server.httpServer.address();
const browser = await chromium.launch(launchOptions);

async function take(name, query, { width = 1000, height = 640, fullPage = true } = {}) {
    const page = await browser.newPage({ viewport: { width, height }, deviceScaleFactor: 1 });
    await page.clock.setFixedTime(new Date("2026-11-23T10:00:00Z"));
    await page.goto(`http://localhost:${port}/?${new URLSearchParams(query)}`);
    await page.locator("main section").first().waitFor({ state: "attached" });
    await page.waitForTimeout(500);
    await page.screenshot({ path: `${images}${name}.png`, fullPage });
    await page.close();
}

for (const theme of ["light", "dark"]) {
    for (const locale of ["en", "zh-CN"]) await take(`gallery-${theme}-${locale}`, { theme, locale });
    await take(`dialog-${theme}`, { theme, story: "dialog" }, { width: 600, height: 480, fullPage: false });
}
await take("dialog-zh-CN-320", { locale: "zh-CN", story: "dialog" }, { width: 320, height: 640, fullPage: false });
await take("gallery-rtl-320", { dir: "rtl" }, { width: 320 });
await browser.close();
await server.close();
