/** Errors of the client. A denial carries its numbers. */

import type { BindingLimit, Code, Problem, Remedy, Upgrade } from "./types.js";

/** The gate rejected the request, or sent no answer. */
export class QuotaGateError extends Error {
    override readonly name: string = "QuotaGateError";
    /** HTTP status; 0 without an answer. */
    readonly status: number;
    /** Problem code; `NO_ANSWER` without an answer. */
    readonly code: Code | "NO_ANSWER";
    /** True if the gate may have carried out the request. */
    readonly indeterminate: boolean;
    /** Time to wait before a retry, in milliseconds. */
    readonly retryAfterMs: number | undefined;
    /** Id of the request in the gate's log. */
    readonly requestId: string | undefined;

    constructor(
        message: string,
        about: {
            status: number;
            code: Code | "NO_ANSWER";
            indeterminate?: boolean | undefined;
            retryAfterMs?: number | undefined;
            requestId?: string | undefined;
            cause?: unknown;
        },
    ) {
        super(message, { cause: about.cause });
        this.status = about.status;
        this.code = about.code;
        this.indeterminate = about.indeterminate ?? false;
        this.retryAfterMs = about.retryAfterMs;
        this.requestId = about.requestId;
    }
}

/** The quota does not cover the message. Nothing was charged. `remedies` says what helps. */
export class QuotaExceededError extends QuotaGateError {
    override readonly name = "QuotaExceededError";
    /** Cost of the message, in AP. */
    readonly required: number;
    /** Remaining AP. */
    readonly remaining: number;
    /** `required − remaining`. */
    readonly shortfall: number;
    /** Time of the next quota reset (RFC 3339). */
    readonly quotaResetAt: string;
    /** Next level with a larger quota; null at the highest level. */
    readonly recommendedUpgrade: Upgrade | null;
    /** Every limit that does not allow the message; empty if the user's level has only a quota. */
    readonly limits: BindingLimit[];
    /** When the message would be allowed (RFC 3339); null for never, undefined if the level has only a quota. */
    readonly retryAt: string | null | undefined;
    /** What would let this message pass, the smallest first. */
    readonly remedies: Remedy[];

    constructor(problem: Problem, requestId: string | undefined) {
        super(problem.title, { status: problem.status, code: problem.code, requestId });
        this.required = problem.required ?? 0;
        this.remaining = problem.remaining ?? 0;
        this.shortfall = problem.shortfall ?? 0;
        this.quotaResetAt = problem.quotaResetAt ?? "";
        this.recommendedUpgrade = problem.recommendedUpgrade ?? null;
        this.limits = problem.limits ?? [];
        this.retryAt = problem.retryAt;
        this.remedies = problem.remedies ?? [];
    }
}

/** Converts an error response into an error. */
export async function errorOf(response: Response): Promise<QuotaGateError> {
    const requestId = response.headers.get("x-request-id") ?? undefined;
    const seconds = Number(response.headers.get("retry-after"));
    const retryAfterMs = seconds > 0 ? seconds * 1000 : undefined;
    const problem = (await response.json().catch(() => undefined)) as Problem | undefined;
    if (problem?.code === "QUOTA_EXCEEDED") {
        return new QuotaExceededError(problem, requestId);
    }
    const code = problem?.code ?? (response.status === 503 ? "QUOTA_UNAVAILABLE" : "INTERNAL_ERROR");
    const message = problem?.detail ?? problem?.title ?? `the gate responded with status ${response.status}`;
    return new QuotaGateError(message, {
        status: response.status,
        code,
        // A response without a problem document is not from the gate. After a 5xx the outcome is unknown.
        indeterminate: problem ? problem.indeterminate : response.status >= 500,
        retryAfterMs,
        requestId,
    });
}
