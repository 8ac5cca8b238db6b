/** What the stylesheet does to the page around the components, and where its colors come from. */

/// <reference types="vite/client" />

import { afterEach, beforeEach, expect, test } from "vitest";
import { cdp, page } from "vitest/browser";
import { render } from "vitest-browser-react";
import { quotaOf } from "../gallery/stories.js";
import { ChatInput, ChatQuotaDisplay, QuotaProvider, QuotaStore } from "../src/index.js";
import css from "../src/styles.css?inline";

const HOST = `<h2>Title</h2><p>Text <a href="#x">link</a></p><input value="x" /><textarea>x</textarea><select><option>x</option></select>
    <button>x</button><dialog open>x</dialog><div data-level="warn" data-theme="light">light</div>
    <div data-theme="dark"><button>dark</button></div><progress value="0.5"></progress>`;

let sheet: HTMLStyleElement;

beforeEach(() => {
    sheet = document.createElement("style");
    sheet.textContent = css;
});

afterEach(async () => {
    sheet.remove();
    document.querySelector("#host")?.remove();
    document.documentElement.removeAttribute("data-theme");
    document.documentElement.removeAttribute("style");
    await scheme("");
});

async function scheme(value: string) {
    await cdp().send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
}

/** Returns each computed property of each element of the host page, custom properties included. */
function styles(): string[] {
    const host = [document.documentElement, document.body, ...document.querySelectorAll("#host *")];
    return host.flatMap((element, at) => {
        const style = getComputedStyle(element);
        return [...style].map((name) => `${at} ${element.tagName} ${name}: ${style.getPropertyValue(name)}`);
    });
}

test.each([
    ["light", null],
    ["dark", null],
    ["light", "dark"],
    ["dark", "light"],
])("the stylesheet changes no element of the host page: system %s, data-theme %s", async (system, theme) => {
    await scheme(system);
    if (theme) document.documentElement.dataset.theme = theme;
    document.body.insertAdjacentHTML("beforeend", `<div id="host">${HOST}</div>`);
    const before = new Set(styles());
    document.head.append(sheet);
    expect(styles().filter((property) => !before.has(property))).toEqual([]);
});

test("every selector names a class of the components", () => {
    document.head.append(sheet);
    const selectors: string[] = [];
    const collect = (rules: CSSRuleList) => {
        for (const rule of rules) {
            if (rule instanceof CSSStyleRule) selectors.push(...rule.selectorText.split(/,(?![^(]*\))/));
            if ("cssRules" in rule) collect(rule.cssRules as CSSRuleList);
        }
    };
    collect(sheet.sheet?.cssRules as CSSRuleList);
    expect(selectors.length).toBeGreaterThan(30);
    expect(selectors.filter((selector) => !/\.qg-/.test(selector))).toEqual([]);
});

const LIGHT = "rgb(255, 255, 255)";
const DARK = "rgb(25, 28, 31)";

test.each([
    ["light", [], LIGHT],
    ["dark", [], DARK],
    ["dark", ["light"], LIGHT],
    ["light", ["dark"], DARK],
    ["light", ["dark", "light"], LIGHT],
    ["light", ["light", "dark"], DARK],
])("system %s, data-theme %j: the nearest theme decides", async (system, themes, surface) => {
    await scheme(system);
    document.head.append(sheet);
    const store = new QuotaStore({ source: { quota: async () => quotaOf(41) }, initialQuota: quotaOf(41) });
    const { container } = await render(
        <QuotaProvider store={store}>
            {themes.reduceRight(
                (inner, theme) => (
                    <div data-theme={theme}>{inner}</div>
                ),
                <>
                    <ChatQuotaDisplay />
                    <ChatInput onSend={() => undefined} />
                </>,
            )}
        </QuotaProvider>,
    );
    await expect.element(page.getByText("41 of 300 AP left")).toBeVisible();
    for (const name of [".qg-display", ".qg-input"]) {
        const style = getComputedStyle(container.querySelector(name) as Element);
        expect(style.backgroundColor, name).toBe(surface);
    }
    const { colorScheme } = getComputedStyle(container.querySelector("textarea") as Element);
    expect(colorScheme === "light dark" ? system : colorScheme).toBe(surface === LIGHT ? "light" : "dark");
});

test("a variable of the host page, on any ancestor, changes a color in both themes", async () => {
    document.head.append(sheet);
    document.documentElement.style.setProperty("--qg-surface", "rgb(1, 2, 3)");
    const store = new QuotaStore({ source: { quota: async () => quotaOf(41) }, initialQuota: quotaOf(41) });
    const { container } = await render(
        <QuotaProvider store={store}>
            <div data-theme="dark">
                <ChatQuotaDisplay />
            </div>
        </QuotaProvider>,
    );
    await expect.element(page.getByText("41 of 300 AP left")).toBeVisible();
    expect(getComputedStyle(container.querySelector(".qg-display") as Element).backgroundColor).toBe("rgb(1, 2, 3)");
});
