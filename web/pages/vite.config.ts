/**
 * Builds pages that load nothing from other origins and run under a strict Content-Security-Policy. Each file also gets
 * a gzip copy, which the binary serves.
 */

import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const packed: Plugin = {
    name: "packed",
    apply: "build",
    enforce: "post",
    generateBundle(_, bundle) {
        for (const file of Object.values(bundle)) {
            const source = file.type === "chunk" ? file.code : file.source;
            this.emitFile({ type: "asset", fileName: `${file.fileName}.gz`, source: gzipSync(source, { level: 9 }) });
        }
    },
};

export default defineConfig({
    plugins: [packed],
    resolve: { conditions: ["browser", "import", "module", "default"] },
    build: {
        assetsInlineLimit: 0,
        modulePreload: { polyfill: false },
        rolldownOptions: { input: ["index.html", "admin.html", "api.html"] },
    },
});
