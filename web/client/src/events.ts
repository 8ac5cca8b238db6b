/** The stream of a user's quota. Reconnects when a connection ends. */

import { QuotaGateError } from "./errors.js";
import { jittered, pause } from "./pause.js";
import type { Transport } from "./transport.js";
import type { Quota } from "./types.js";

const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 30_000;

/** Yields the data of each server-sent event. */
export async function* dataOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
    const decoder = new TextDecoder();
    const reader = body.getReader();
    let text = "";
    try {
        for (;;) {
            const { done, value } = await reader.read();
            if (done) return;
            text += decoder.decode(value, { stream: true });
            const events = text.split(/\r\n\r\n|\n\n|\r\r/);
            text = events.pop() ?? "";
            for (const event of events) {
                const lines = event.split(/\r\n|\n|\r/).filter((line) => line.startsWith("data:"));
                if (lines.length > 0) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
            }
        }
    } finally {
        // End the request when the caller stops reading.
        await reader.cancel().catch(() => undefined);
    }
}

/**
 * Yields the user's quota, now and after each change, until `signal` aborts. Reconnects when a connection ends; throws
 * only if the gate rejects this caller. Skips quotas with an older version.
 */
export async function* watch(
    transport: Transport,
    path: string,
    user: string | undefined,
    signal: AbortSignal | undefined,
): AsyncGenerator<Quota> {
    let version = -1;
    let failures = 0;
    while (!signal?.aborted) {
        try {
            const response = await transport.open(
                { method: "GET", path, user, repeatable: true, signal },
                "text/event-stream",
            );
            if (!response.body) return;
            for await (const data of dataOf(response.body)) {
                failures = 0;
                const quota = JSON.parse(data) as Quota;
                if (quota.version < version && quota.source === "redis") continue;
                if (quota.source === "redis") version = quota.version;
                yield quota;
            }
        } catch (error) {
            if (signal?.aborted) return;
            if (error instanceof QuotaGateError && error.status >= 400 && error.status < 500 && error.status !== 429) {
                throw error;
            }
        }
        await pause(jittered(Math.min(PAUSE_MIN_MS * 2 ** failures++, PAUSE_MAX_MS)), signal);
    }
}
