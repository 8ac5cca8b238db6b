/** The page at `/api`: the interactive API reference, under the same strict policy. */

import { expect, test } from "vitest";
import { url, world } from "./browser.js";

const here = world();

test("a request can be sent from the page", async () => {
    const page = await here.context.newPage();
    await page.goto(`${url}/api`);
    await page.getByText("Decides, for every message of a chat product").waitFor();
    await page.getByRole("button", { name: "Authorize" }).first().click();
    const admin = page.locator(".auth-container").filter({ hasText: "The token of an administrator" });
    await admin.getByRole("textbox").fill(process.env.QUOTA_GATE_ADMIN_TOKEN ?? "");
    await admin.getByRole("button", { name: "Apply credentials" }).click();
    await page.locator(".close-modal").click();
    const operation = page.locator("#operations-admin-getStatus");
    await operation.getByRole("button").first().click();
    await operation.getByRole("button", { name: "Try it out" }).click();
    await operation.getByRole("button", { name: "Execute" }).click();
    await operation.locator(".live-responses-table .response-col_status").filter({ hasText: "200" }).waitFor();
    expect(await operation.locator(".live-responses-table").textContent()).toContain("partitions");
});
