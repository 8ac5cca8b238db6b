/** Sends requests: authentication, timeout and retries. */

import { errorOf, QuotaGateError } from "./errors.js";
import { jittered, pause } from "./pause.js";

/** How to connect to a gate. */
export interface TransportOptions {
    /** Base URL of the gate, for example `https://quota.internal`; in browsers, of your own routes. */
    url: string;
    /**
     * Service token or user's JWT. A function is called before each request. If the gate rejects its token, it is
     * called again with that token; if it returns a new one, the request is sent again. Omit the token where a cookie
     * authenticates.
     */
    token?: string | ((rejected?: string) => string | Promise<string>) | undefined;
    /** Timeout of one attempt, in milliseconds; 5000 by default. */
    timeoutMs?: number | undefined;
    /** Maximum retries of a request that is safe to repeat; 2 by default. */
    retries?: number | undefined;
    /** Replacement for `fetch`. */
    fetch?: typeof fetch | undefined;
}

/** A request. */
export interface Ask {
    method: "GET" | "POST" | "PUT";
    path: string;
    body?: unknown;
    /** User for whom a service sends the request. */
    user?: string | undefined;
    idempotencyKey?: string | undefined;
    /** Safe to carry out twice, so a lost answer may be retried. */
    repeatable: boolean;
    signal?: AbortSignal | undefined;
}

const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 2000;

export class Transport {
    readonly #url: string;
    readonly #token: TransportOptions["token"];
    readonly #timeoutMs: number;
    readonly #retries: number;
    readonly #fetch: typeof fetch;

    constructor(options: TransportOptions) {
        this.#url = options.url.replace(/\/+$/, "");
        this.#token = options.token;
        this.#timeoutMs = options.timeoutMs ?? 5000;
        this.#retries = options.retries ?? 2;
        this.#fetch = options.fetch ?? ((...request) => globalThis.fetch(...request));
    }

    /** Sends a request and retries it where that is safe. Throws the last error. */
    async ask<T>(ask: Ask): Promise<T> {
        for (let attempt = 0; ; attempt++) {
            try {
                return await this.#once<T>(ask);
            } catch (error) {
                if (attempt >= this.#retries || ask.signal?.aborted || !mayRepeat(ask, error)) throw error;
                await pause(pauseBefore(attempt, error), ask.signal);
            }
        }
    }

    /** Sends a request once, or twice if its token was renewed, without a timeout, and returns the response. */
    async open(ask: Ask, accept: string): Promise<Response> {
        const headers = new Headers({ accept });
        if (ask.body !== undefined) headers.set("content-type", "application/json");
        if (ask.user !== undefined) headers.set("x-user-id", ask.user);
        if (ask.idempotencyKey !== undefined) headers.set("idempotency-key", ask.idempotencyKey);
        const source = this.#token;
        const token = typeof source === "function" ? await source() : source;
        const response = await this.#send(ask, headers, token);
        if (response.ok) return response;
        if (response.status === 401 && typeof source === "function" && token !== undefined) {
            const renewed = await renew(source, token);
            if (renewed !== token) {
                await response.body?.cancel();
                const repeated = await this.#send(ask, headers, renewed);
                if (repeated.ok) return repeated;
                throw await errorOf(repeated);
            }
        }
        throw await errorOf(response);
    }

    #send(ask: Ask, headers: Headers, token: string | undefined): Promise<Response> {
        if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
        return this.#fetch(this.#url + ask.path, {
            method: ask.method,
            headers,
            body: ask.body === undefined ? null : JSON.stringify(ask.body),
            signal: ask.signal ?? null,
        });
    }

    async #once<T>(ask: Ask): Promise<T> {
        const timeout = AbortSignal.timeout(this.#timeoutMs);
        const signal = ask.signal ? AbortSignal.any([ask.signal, timeout]) : timeout;
        try {
            const response = await this.open({ ...ask, signal }, "application/json");
            return (await response.json()) as T;
        } catch (error) {
            if (error instanceof QuotaGateError || ask.signal?.aborted) throw error;
            const what = timeout.aborted ? `no answer within ${this.#timeoutMs} ms` : "the gate cannot be reached";
            // The request may have arrived.
            throw new QuotaGateError(what, { status: 0, code: "NO_ANSWER", indeterminate: true, cause: error });
        }
    }
}

/** Returns a new token, or the rejected one if there is none: the error is then the gate's. */
async function renew(source: (rejected: string) => string | Promise<string>, rejected: string): Promise<string> {
    try {
        return await source(rejected);
    } catch {
        return rejected;
    }
}

function mayRepeat(ask: Ask, error: unknown): boolean {
    if (!(error instanceof QuotaGateError)) return false;
    const isTransient = error.code === "NO_ANSWER" || error.status >= 500 || error.code === "RATE_LIMITED";
    return isTransient && (ask.repeatable || !error.indeterminate);
}

/** Returns the gate's `Retry-After` or, without one, a pause that doubles with each attempt. */
function pauseBefore(attempt: number, error: unknown): number {
    const asked = error instanceof QuotaGateError ? error.retryAfterMs : undefined;
    return jittered(Math.min(asked ?? PAUSE_MIN_MS * 2 ** attempt, PAUSE_MAX_MS));
}
