import axe from "axe-core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { page } from "vitest/browser";
import { render } from "vitest-browser-react";
import { stories } from "../gallery/stories.js";
import { QuotaProvider } from "../src/index.js";
import { zhCN } from "../src/locales/zh-CN.js";
import "../src/styles.css";

const languages = [
    { locale: "en", messages: {} },
    { locale: "zh-CN", messages: zhCN },
];

beforeEach(async () => {
    await page.viewport(320, 700);
});

afterEach(() => {
    document.documentElement.removeAttribute("data-theme");
    document.documentElement.lang = "en";
    document.body.style.background = "";
});

for (const story of stories) {
    for (const theme of ["light", "dark"]) {
        for (const { locale, messages } of languages) {
            test(`${story.name}, ${theme}, ${locale}: no axe violations, and no overflow at 320 px`, async () => {
                document.documentElement.dataset.theme = theme;
                document.documentElement.lang = locale;
                document.body.style.background = theme === "dark" ? "#191c1f" : "#ffffff";
                const { container } = await render(
                    <QuotaProvider store={story.store()} locale={locale} messages={messages}>
                        <main>{story.show()}</main>
                    </QuotaProvider>,
                );
                await expect.poll(() => container.textContent).not.toBe("");
                const found = await axe.run(container, { rules: { "page-has-heading-one": { enabled: false } } });
                expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`)).toEqual([]);
                expect(document.documentElement.scrollWidth).toBeLessThanOrEqual(320);
                for (const element of container.querySelectorAll<HTMLElement>("[class^='qg-']:not(.qg-announcement)")) {
                    expect(element.scrollWidth, element.className).toBeLessThanOrEqual(element.clientWidth + 1 || 1e9);
                }
                // Chinese pages contain no English text.
                if (locale === "zh-CN")
                    expect(container.textContent).not.toMatch(
                        /\b(left|used|Check|Resets|Costs|Close|extra|resets|Buy|Upgrade|Use|Try)\b/,
                    );
            });
        }
    }
}
