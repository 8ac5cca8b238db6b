/** Runs the tests in a real Chromium, with React 19 and React 18. */

import { fileURLToPath } from "node:url";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { launchOptions } from "../chromium.mjs";

const of18 = (name: string) => fileURLToPath(new URL(`../react-18/node_modules/${name}`, import.meta.url));

export default defineConfig({
    optimizeDeps: {
        include: ["axe-core", "react", "react-dom/client", "react/jsx-dev-runtime", "vitest-browser-react"],
    },
    test: {
        include: ["test/**/*.test.tsx"],
        browser: {
            enabled: true,
            headless: true,
            screenshotFailures: false,
            provider: playwright({ launchOptions }),
            instances: [{ browser: "chromium" }],
        },
        projects: [
            { extends: true, define: { REACT_MAJOR: '"19"' }, test: { name: "react 19" } },
            {
                extends: true,
                define: { REACT_MAJOR: '"18"' },
                cacheDir: "node_modules/.vite-18",
                resolve: { alias: [{ find: /^(react|react-dom)(\/.*)?$/, replacement: `${of18("$1")}$2` }] },
                test: { name: "react 18" },
            },
        ],
    },
});
