/**
 * Routes for a product's own server (Next.js route handlers, or any server with `Request` and `Response`). The browser
 * calls them, and they call the gate with a service token that the browser never sees.
 */

import { QuotaGateError } from "./errors.js";
import { quotaPath } from "./meter.js";
import { Transport, type TransportOptions } from "./transport.js";

/** Options of `quotaHandler`. */
export interface QuotaHandlerOptions extends TransportOptions {
    /** What is counted; `chat` by default. */
    meter?: string | undefined;
    /** Returns the signed-in user, or null. The handler ignores any user that the browser names. */
    user: (request: Request) => string | null | Promise<string | null>;
}

/**
 * Returns a handler for `GET …/quota` and `GET …/quota/stream`; mount it at paths with these endings. In Next.js, in
 * `app/api/chat/quota/[[...path]]/route.ts`: `export const GET = quotaHandler({ … })`.
 */
export function quotaHandler(options: QuotaHandlerOptions): (request: Request) => Promise<Response> {
    const transport = new Transport(options);
    const quota = quotaPath(options.meter);
    return async (request) => {
        const user = await options.user(request);
        if (user === null) return problem(401, "UNAUTHENTICATED", "Not authenticated");
        const isStream = new URL(request.url).pathname.endsWith("/stream");
        const path = isStream ? `${quota}/stream` : quota;
        const accept = isStream ? "text/event-stream" : "application/json";
        try {
            const ask = { method: "GET", path, user, repeatable: true, signal: request.signal } as const;
            const answer = await transport.open(ask, accept);
            const headers = { "content-type": accept, "cache-control": "no-store", "x-accel-buffering": "no" };
            return new Response(answer.body, { headers });
        } catch (error) {
            if (error instanceof QuotaGateError && error.status > 0) {
                // The gate's 401 is about this server's token, not about the browser's user.
                if (error.status === 401 || error.status === 403) {
                    console.error("the gate rejected this server's token:", error.message);
                    return problem(503, "QUOTA_UNAVAILABLE", "Quota unavailable");
                }
                return problem(error.status, error.code, error.message);
            }
            return problem(503, "QUOTA_UNAVAILABLE", "Quota unavailable");
        }
    };
}

function problem(status: number, code: string, title: string): Response {
    const headers = { "content-type": "application/problem+json", "cache-control": "no-store" };
    return new Response(JSON.stringify({ type: "about:blank", title, status, code }), { status, headers });
}
