/**
 * The packages, as they would be published, in two apps that know nothing of this repository: one by Vite, one by Next.js. Both have to
 * install, type-check and build; the Next.js one renders what is left on the server.
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const work = mkdtempSync(join(tmpdir(), "quota-gate-apps-"));
const run = (cwd, program, ...rest) =>
    execFileSync(program, rest, {
        cwd,
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1" },
    });

const quota = {
    userUuid: "alice",
    membershipLevel: "basic",
    monthlyQuota: 300,
    monthlyUsed: 259,
    held: 0,
    remaining: 41,
    usagePercent: 86.3,
    todayUsed: 1,
    totalUsed: 259,
    period: "2026-11",
    quotaResetAt: "2026-12-01T00:00:00Z",
    timeZone: "UTC",
    status: "warn",
    recommendedUpgrade: null,
    version: 1,
    asOf: "2026-11-23T10:00:00Z",
    source: "redis",
};

const chat = `"use client";
import { QuotaGate, type Quota } from "@quota-gate/client";
import { ChatInput, ChatQuotaDisplay, QuotaExceededDialog, QuotaProvider, QuotaStore } from "@quota-gate/react";
import { zhCN } from "@quota-gate/react/locales/zh-CN";
import "@quota-gate/react/styles.css";

const initialQuota: Quota = ${JSON.stringify(quota)};
const store = new QuotaStore({ source: new QuotaGate({ url: "" }), initialQuota });

export default function Chat() {
    return (
        <QuotaProvider store={store} locale="zh-CN" messages={zhCN}>
            <ChatQuotaDisplay />
            <ChatInput onSend={() => undefined} />
            <QuotaExceededDialog denial={null} onClose={() => undefined} />
        </QuotaProvider>
    );
}
`;
const compilerOptions = {
    target: "ES2022",
    module: "ESNext",
    moduleResolution: "Bundler",
    lib: ["ES2022", "DOM", "DOM.Iterable"],
    jsx: "react-jsx",
    strict: true,
    noEmit: true,
};

const apps = {
    vite: {
        dependencies: { vite: "8.3.8" },
        files: {
            "index.html": '<!doctype html><div id="root"></div><script type="module" src="/main.tsx"></script>',
            "main.tsx":
                'import { createRoot } from "react-dom/client";\nimport Chat from "./chat.js";\ncreateRoot(document.getElementById("root")!).render(<Chat />);\n',
            "chat.tsx": chat,
            "vite-env.d.ts": '/// <reference types="vite/client" />\n',
        },
        build: ["npx", "vite", "build"],
        check: (dir) => readdirSync(join(dir, "dist/assets")).some((file) => file.endsWith(".css")),
    },
    next: {
        dependencies: { next: "16.4.6" },
        files: {
            "app/layout.tsx":
                'import type { ReactNode } from "react";\nexport default function Layout({ children }: { children: ReactNode }) {\n    return <html lang="zh-CN"><body>{children}</body></html>;\n}\n',
            "app/page.tsx": 'import Chat from "./chat";\nexport default function Page() {\n    return <Chat />;\n}\n',
            "app/chat.tsx": chat,
            "app/css.d.ts": 'declare module "*.css";\n',
            "app/api/chat/quota/[[...path]]/route.ts":
                'import { quotaHandler } from "@quota-gate/client/server";\nexport const GET = quotaHandler({ url: "http://127.0.0.1:8080", token: "t", user: () => null });\n',
        },
        build: ["npx", "next", "build"],
        check: (dir) => readFileSync(join(dir, ".next/server/app/index.html"), "utf8").includes("剩余 41 / 300 AP"),
    },
};

try {
    const tarballs = {};
    for (const name of ["client", "react"]) {
        const [{ filename }] = JSON.parse(run(join(here, name), "npm", "pack", "--json", "--pack-destination", work));
        tarballs[`@quota-gate/${name}`] = `file:${join(work, filename)}`;
    }
    for (const [name, { dependencies, files, build, check }] of Object.entries(apps)) {
        const dir = join(work, name);
        const all = {
            "package.json": JSON.stringify({
                name,
                private: true,
                type: "module",
                dependencies: { ...tarballs, react: "19.3.1", "react-dom": "19.3.1", ...dependencies },
                devDependencies: {
                    "@types/node": "20.19.25",
                    "@types/react": "19.3.0",
                    "@types/react-dom": "19.3.0",
                    typescript: "5.9.3",
                },
            }),
            // Next.js' own types want a newer library than its own template has.
            "tsconfig.json": JSON.stringify({
                compilerOptions: { ...compilerOptions, skipLibCheck: name === "next" },
                exclude: ["node_modules"],
            }),
            ...files,
        };
        for (const [file, text] of Object.entries(all)) {
            mkdirSync(dirname(join(dir, file)), { recursive: true });
            writeFileSync(join(dir, file), text);
        }
        run(dir, "npm", "install", "--no-audit", "--no-fund");
        if (name === "vite") run(dir, "npx", "tsc");
        run(dir, ...build);
        if (!check(dir)) throw new Error(`${name}: it was built, and what it should have is not in it`);
        console.log(name, "ok");
    }
} catch (error) {
    console.error(String(error.stdout ?? ""), String(error.stderr ?? ""));
    throw error;
} finally {
    rmSync(work, { recursive: true, force: true });
}
