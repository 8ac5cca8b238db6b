/** Checks a page that only displays the quota: its gzipped bundle size without React, and no unused code in it. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const MOST_BYTES = 8 * 1024;

const entry = fileURLToPath(new URL("size-entry.js", import.meta.url));
const built = await build({
    configFile: false,
    logLevel: "error",
    build: {
        write: false,
        minify: true,
        lib: { entry, formats: ["es"], fileName: "entry" },
        rollupOptions: { external: [/^react/], onwarn: () => undefined },
    },
});
const code = [built]
    .flat()[0]
    .output.map((file) => file.code ?? "")
    .join("");
const bytes = gzipSync(code, { level: 9 }).length;
console.log(`useChatQuota and ChatQuotaDisplay: ${bytes} bytes gzipped, at most ${MOST_BYTES}`);
if (bytes > MOST_BYTES) throw new Error("the bundle is too large");
for (const unused of ["qg-dialog", "qg-input", "剩余"]) {
    if (code.includes(unused)) throw new Error(`the bundle contains unused code: ${unused}`);
}
