/**
 * Keeps a user's quota up to date from a snapshot, the stream of changes, and fetches when there is a reason for one.
 * Does not depend on React.
 */

import type { Quota } from "@quota-gate/client";

/** Source of quotas: a `QuotaGate` or a similar object. */
export interface QuotaSource {
    quota(user?: string, options?: { signal?: AbortSignal }): Promise<Quota>;
    watch?(user?: string, options?: { signal?: AbortSignal }): AsyncIterable<Quota>;
}

/**
 * `stale`: the quota may be out of date, and cannot be fetched now. `error`: it is unknown, and cannot be fetched now.
 * `signedOut`: the user's token or session was rejected.
 */
export type Status = "loading" | "ready" | "stale" | "error" | "signedOut";

/** State of a store. */
export interface QuotaState {
    readonly status: Status;
    readonly quota: Quota | undefined;
    /**
     * AP of unanswered messages that `quota` does not include yet, neither as held nor as used. Only for display: never
     * subtracted from `quota.remaining`.
     */
    readonly pending: number;
    readonly error: unknown;
}

/** Options of `QuotaStore`. */
export interface QuotaStoreOptions {
    source: QuotaSource;
    /** Quota from the server that rendered the page: shown immediately. */
    initialQuota?: Quota | undefined;
    /**
     * Called when the user's token or session is rejected. Sign the user in again, then call `refresh`. A token that
     * can be renewed is better renewed by the `token` function of `QuotaGate`.
     */
    onSignedOut?: (() => void) | undefined;
}

/** A message that is not answered yet. */
interface Sent {
    ap: number;
    /** Period, and used and held AP of it, at which the known quota includes the message; undefined if it was unknown. */
    includedAt: { period: string; taken: number } | undefined;
}

/** Maximum random delay, so that not all clients fetch at the moment of a reset. */
const JITTER_MAX_MS = 3000;
/** In every time zone, days begin on a quarter of an hour. */
const LOOK_EVERY_MS = 15 * 60 * 1000;
/** Minimum age of the last fetch before a return to the page fetches again. */
const FRESH_MS = 1000;
/** Pause before a retry while the quota is not current. It doubles with each failure. */
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 30_000;

/** Holds one user's quota for any number of components. */
export class QuotaStore {
    readonly #source: QuotaSource;
    readonly #onSignedOut: (() => void) | undefined;
    readonly #listeners = new Set<() => void>();
    readonly #initial: QuotaState;
    #state: QuotaState;
    /** Highest version from Redis. */
    #version = -1;
    readonly #sent = new Set<Sent>();
    #users = 0;
    #stop: (() => void) | undefined;
    /** Aborts when the last listener is removed. */
    #signal: AbortSignal | undefined;
    /** Signal of the stream that runs. */
    #following: AbortSignal | undefined;
    #looking: Promise<void> | undefined;
    #lookedAt = 0;
    /** Fetches in a row that brought no current quota. */
    #failures = 0;
    #timer: ReturnType<typeof setTimeout> | undefined;

    constructor({ source, initialQuota, onSignedOut }: QuotaStoreOptions) {
        this.#source = source;
        this.#onSignedOut = onSignedOut;
        if (initialQuota?.source === "redis") this.#version = initialQuota.version;
        const status = initialQuota ? statusOf(initialQuota) : "loading";
        this.#initial = { status, quota: initialQuota, pending: 0, error: undefined };
        this.#state = this.#initial;
    }

    /** For `useSyncExternalStore`. Adding the first listener starts the store, removing the last one stops it. */
    readonly subscribe = (listener: () => void): (() => void) => {
        this.#listeners.add(listener);
        if (this.#users++ === 0) this.#stop = this.#start();
        return () => {
            this.#listeners.delete(listener);
            if (--this.#users === 0) this.#stop?.();
        };
    };

    readonly getSnapshot = (): QuotaState => this.#state;
    /** The state that the server rendered, so that the browser's first render matches it. */
    readonly getServerSnapshot = (): QuotaState => this.#initial;

    /** Applies a quota from any source, such as a chat's own stream. An older quota does not replace the known one. */
    readonly apply = (quota: Quota): void => {
        const known = this.#state.quota;
        if (quota.source === "redis" && quota.version < this.#version) return;
        if (quota.source === "redis") this.#version = quota.version;
        // Numbers that are not newer still show whether the known ones are up to date.
        const isNews = !known || isNewer(quota, known);
        if (isNews) this.#settle(quota);
        this.#set({ status: statusOf(quota), error: undefined, ...(isNews && { quota, pending: this.#pending() }) });
        if (this.#state.status === "ready") this.#failures = 0;
        this.#arm();
    };

    /** Fetches the quota now: after an answer, after a denial, or on request. */
    readonly refresh = (): Promise<void> => {
        this.#looking ??= this.#look().finally(() => {
            this.#looking = undefined;
        });
        return this.#looking;
    };

    /** Adds the cost of a message to `pending`. Call the returned function when the message is answered. */
    readonly hold = (ap: number): (() => void) => {
        const { quota, pending } = this.#state;
        const sent: Sent = { ap, includedAt: quota && { period: quota.period, taken: takenOf(quota) + pending + ap } };
        this.#sent.add(sent);
        this.#set({ pending: this.#pending() });
        return () => {
            if (this.#sent.delete(sent)) this.#set({ pending: this.#pending() });
        };
    };

    #pending(): number {
        return [...this.#sent].reduce((sum, { ap }) => sum + ap, 0);
    }

    /** Forgets the messages that this quota includes. */
    #settle(quota: Quota): void {
        for (const sent of this.#sent) {
            const at = sent.includedAt;
            if (at && (at.period !== quota.period || takenOf(quota) >= at.taken)) this.#sent.delete(sent);
        }
    }

    async #look(): Promise<void> {
        try {
            const quota = await this.#source.quota();
            this.#lookedAt = Date.now();
            this.apply(quota);
            // A stream that was rejected may be allowed again.
            if (this.#signal) void this.#follow(this.#signal);
        } catch (error) {
            const wasSignedOut = this.#state.status === "signedOut";
            this.#set({ status: isSignedOut(error) ? "signedOut" : this.#state.quota ? "stale" : "error", error });
            if (this.#state.status === "signedOut" && !wasSignedOut) this.#onSignedOut?.();
        }
        if (this.#state.status !== "ready") this.#failures++;
        this.#arm();
    }

    #start(): () => void {
        const controller = new AbortController();
        const comeBack = () => {
            if (document.visibilityState === "visible" && Date.now() - this.#lookedAt > FRESH_MS) void this.refresh();
        };
        const { signal } = controller;
        this.#signal = signal;
        window.addEventListener("focus", comeBack, { signal });
        window.addEventListener("online", comeBack, { signal });
        document.addEventListener("visibilitychange", comeBack, { signal });
        if (this.#state.quota === undefined) void this.refresh();
        void this.#follow(signal);
        this.#arm();
        return () => {
            controller.abort();
            this.#signal = undefined;
            clearTimeout(this.#timer);
        };
    }

    async #follow(signal: AbortSignal): Promise<void> {
        if (this.#following === signal || !this.#source.watch) return;
        this.#following = signal;
        try {
            for await (const quota of this.#source.watch(undefined, { signal })) this.apply(quota);
        } catch {
            // Without a stream, fetches keep the quota up to date.
        }
        if (this.#following === signal) this.#following = undefined;
    }

    /**
     * Schedules a fetch: at the end of the period or a window, and whenever a day may have begun; sooner if the last fetch failed,
     * because no event follows when the gate or Redis is available again.
     */
    #arm(): void {
        clearTimeout(this.#timer);
        if (this.#users === 0) return;
        const now = Date.now();
        const resets = this.#state.quota ? resetsOf(this.#state.quota).filter((at) => at > now) : [];
        const nextQuarter = (Math.floor(now / LOOK_EVERY_MS) + 1) * LOOK_EVERY_MS;
        const at = Math.min(nextQuarter, ...resets);
        const regular = at - now + Math.random() * JITTER_MAX_MS;
        this.#timer = setTimeout(() => void this.refresh(), Math.min(regular, this.#retryMs()));
    }

    /** Pause before the next retry; infinite if a retry is useless. A hidden page fetches when it is shown again. */
    #retryMs(): number {
        const { status } = this.#state;
        const helps = (status === "stale" || status === "error") && document.visibilityState === "visible";
        if (!helps) return Number.POSITIVE_INFINITY;
        return Math.min(RETRY_MIN_MS * 2 ** this.#failures, RETRY_MAX_MS) * (0.5 + Math.random() / 2);
    }

    #set(change: Partial<QuotaState>): void {
        this.#state = { ...this.#state, ...change };
        for (const listener of this.#listeners) listener();
    }
}

/** A quota from Postgres, served while Redis is unavailable, may be slightly out of date. */
function statusOf(quota: Quota): Status {
    return quota.source === "redis" ? "ready" : "stale";
}

/** Returns whether the quota, which is no older version, has other numbers than the known one. */
function isNewer(quota: Quota, known: Quota): boolean {
    if (quota.source === "redis" && (known.source === "postgres" || quota.version > known.version)) return true;
    // An expired hold or a new day changes the numbers but not the version; a quota from Postgres has no version.
    return Date.parse(quota.asOf) > Date.parse(known.asOf);
}

/** When the period and the windows end. */
function resetsOf({ quotaResetAt, limits = [] }: Quota): number[] {
    return [quotaResetAt, ...limits.map(({ resetsAt }) => resetsAt ?? "")].map((at) => Date.parse(at));
}

function takenOf(quota: Quota): number {
    return quota.monthlyUsed + quota.held;
}

function isSignedOut(error: unknown): boolean {
    return (error as { status?: unknown } | undefined)?.status === 401;
}
