/** The gallery: every story, in the theme and language of the URL (`?theme=dark&locale=zh-CN&story=dialog`). */

import { createRoot } from "react-dom/client";
import { QuotaProvider } from "../src/index.js";
import { zhCN } from "../src/locales/zh-CN.js";
import { stories } from "./stories.js";
import "../src/styles.css";

const query = new URLSearchParams(location.search);
const locale = query.get("locale") ?? "en";
const theme = query.get("theme") ?? "light";
const only = query.get("story");
document.documentElement.dataset.theme = theme;
document.documentElement.lang = locale;
document.documentElement.dir = query.get("dir") ?? "ltr";
document.body.style.cssText = `margin: 1rem; font-family: system-ui, sans-serif; background: ${theme === "dark" ? "#101315" : "#f4f5f7"}`;

const shown = stories.filter((story) => (only ? story.name === only : !story.isModal));
createRoot(document.getElementById("root") as HTMLElement).render(
    <main
        style={{
            display: "grid",
            gap: "1rem",
            gridTemplateColumns: "repeat(auto-fill, minmax(min(20rem, 100%), 1fr))",
        }}
    >
        {shown.map((story) => (
            <QuotaProvider
                key={story.name}
                store={story.store()}
                locale={locale}
                messages={locale === "zh-CN" ? zhCN : {}}
            >
                <section aria-label={story.name}>{story.show()}</section>
            </QuotaProvider>
        ))}
    </main>,
);
