/** What the gate refuses, as errors with the numbers that explain it. */

import type { Code, Problem, Upgrade } from "./types.js";

/** The gate refused, or could not be asked. */
export class QuotaGateError extends Error {
    override readonly name: string = "QuotaGateError";
    /** The HTTP status; 0 when there was no answer. */
    readonly status: number;
    /** The kind of problem; `NO_ANSWER` when there was none. */
    readonly code: Code | "NO_ANSWER";
    /** The request may or may not have been carried out. */
    readonly indeterminate: boolean;
    /** When asking again makes sense, in milliseconds. */
    readonly retryAfterMs: number | undefined;
    /** Names the request in the gate's log. */
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

/** The quota does not cover the message. Nothing was charged, and asking again does not help. */
export class QuotaExceededError extends QuotaGateError {
    override readonly name = "QuotaExceededError";
    /** What the message would have cost, in AP. */
    readonly required: number;
    /** What is left. */
    readonly remaining: number;
    /** `required − remaining`. */
    readonly shortfall: number;
    /** When there is a new quota (RFC 3339). */
    readonly quotaResetAt: string;
    /** The next level that gives more; null at the top. */
    readonly recommendedUpgrade: Upgrade | null;

    constructor(problem: Problem, requestId: string | undefined) {
        super(problem.title, { status: problem.status, code: problem.code, requestId });
        this.required = problem.required ?? 0;
        this.remaining = problem.remaining ?? 0;
        this.shortfall = problem.shortfall ?? 0;
        this.quotaResetAt = problem.quotaResetAt ?? "";
        this.recommendedUpgrade = problem.recommendedUpgrade ?? null;
    }
}

/** The error that an answer is. */
export async function errorOf(response: Response): Promise<QuotaGateError> {
    const requestId = response.headers.get("x-request-id") ?? undefined;
    const seconds = Number(response.headers.get("retry-after"));
    const retryAfterMs = seconds > 0 ? seconds * 1000 : undefined;
    const problem = (await response.json().catch(() => undefined)) as Problem | undefined;
    if (problem?.code === "QUOTA_EXCEEDED") {
        return new QuotaExceededError(problem, requestId);
    }
    const code = problem?.code ?? (response.status === 503 ? "QUOTA_UNAVAILABLE" : "INTERNAL_ERROR");
    const message = problem?.detail ?? problem?.title ?? `the gate answers ${response.status}`;
    return new QuotaGateError(message, {
        status: response.status,
        code,
        // Whoever answers without a problem is not the gate: nobody knows what it has done.
        indeterminate: problem ? problem.indeterminate : response.status >= 500,
        retryAfterMs,
        requestId,
    });
}
