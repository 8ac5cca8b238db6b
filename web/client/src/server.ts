/**
 * Routes for a product's own server (Next.js route handlers, or anything with `Request` and `Response`): the browser asks them, and
 * they ask the gate, with the token of a service that no browser sees.
 */

import { QuotaGateError } from "./errors.js";
import { Transport, type TransportOptions } from "./transport.js";

/** Which routes, and for whom. */
export interface QuotaHandlerOptions extends TransportOptions {
    /** The user who is signed in; null when nobody is. What the browser says of users is never looked at. */
    user: (request: Request) => string | null | Promise<string | null>;
}

/**
 * A handler for `GET …/quota` and `GET …/quota/stream`, to be mounted at a path that ends so. In Next.js, in
 * `app/api/chat/quota/[[...path]]/route.ts`: `export const GET = quotaHandler({ … })`.
 */
export function quotaHandler(options: QuotaHandlerOptions): (request: Request) => Promise<Response> {
    const transport = new Transport(options);
    return async (request) => {
        const user = await options.user(request);
        if (user === null) return problem(401, "UNAUTHENTICATED", "Not authenticated");
        const isStream = new URL(request.url).pathname.endsWith("/stream");
        const path = isStream ? "/api/chat/quota/stream" : "/api/chat/quota";
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
                    console.error("the gate refuses this server's token:", error.message);
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
