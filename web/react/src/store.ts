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

/** `stale`: the quota may be out of date, and cannot be fetched now. */
export type Status = "loading" | "ready" | "stale" | "error";

/** State of a store. */
export interface QuotaState {
    readonly status: Status;
    readonly quota: Quota | undefined;
    /** AP of sent messages that the gate has not answered yet. Never subtracted from `quota.remaining`. */
    readonly pending: number;
    readonly error: unknown;
}

/** Options of `QuotaStore`. */
export interface QuotaStoreOptions {
    source: QuotaSource;
    /** Quota from the server that rendered the page: shown immediately. */
    initialQuota?: Quota | undefined;
}

/** Maximum random delay, so that not all clients fetch at the moment of a reset. */
const JITTER_MAX_MS = 3000;
/** In every time zone, days begin on a quarter of an hour. */
const LOOK_EVERY_MS = 15 * 60 * 1000;
/** Minimum age of the last fetch before a return to the page fetches again. */
const FRESH_MS = 1000;

/** Holds one user's quota for any number of components. */
export class QuotaStore {
    readonly #source: QuotaSource;
    readonly #listeners = new Set<() => void>();
    readonly #initial: QuotaState;
    #state: QuotaState;
    #users = 0;
    #stop: (() => void) | undefined;
    #looking: Promise<void> | undefined;
    #lookedAt = 0;
    #timer: ReturnType<typeof setTimeout> | undefined;

    constructor({ source, initialQuota }: QuotaStoreOptions) {
        this.#source = source;
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
        if (known && !isNewer(quota, known)) {
            // The numbers are not newer, but the source shows whether the known ones are still up to date.
            const isBehind = quota.source === "redis" && quota.version < known.version;
            if (!isBehind) this.#set({ status: statusOf(quota), error: undefined });
            return;
        }
        this.#set({ status: statusOf(quota), quota, error: undefined });
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
        let isHeld = true;
        this.#set({ pending: this.#state.pending + ap });
        return () => {
            if (!isHeld) return;
            isHeld = false;
            this.#set({ pending: this.#state.pending - ap });
        };
    };

    async #look(): Promise<void> {
        try {
            const quota = await this.#source.quota();
            this.#lookedAt = Date.now();
            this.apply(quota);
        } catch (error) {
            this.#set({ status: this.#state.quota ? "stale" : "error", error });
        }
    }

    #start(): () => void {
        const controller = new AbortController();
        const comeBack = () => {
            if (document.visibilityState === "visible" && Date.now() - this.#lookedAt > FRESH_MS) void this.refresh();
        };
        const { signal } = controller;
        window.addEventListener("focus", comeBack, { signal });
        window.addEventListener("online", comeBack, { signal });
        document.addEventListener("visibilitychange", comeBack, { signal });
        if (this.#state.quota === undefined) void this.refresh();
        void this.#follow(signal);
        this.#arm();
        return () => {
            controller.abort();
            clearTimeout(this.#timer);
        };
    }

    async #follow(signal: AbortSignal): Promise<void> {
        try {
            for await (const quota of this.#source.watch?.(undefined, { signal }) ?? []) this.apply(quota);
        } catch {
            // Without a stream, fetches keep the quota up to date.
        }
    }

    /** Schedules a fetch at the end of the period and whenever a day may have begun. */
    #arm(): void {
        clearTimeout(this.#timer);
        if (this.#users === 0) return;
        const now = Date.now();
        const reset = this.#state.quota ? Date.parse(this.#state.quota.quotaResetAt) : Number.POSITIVE_INFINITY;
        const nextQuarter = (Math.floor(now / LOOK_EVERY_MS) + 1) * LOOK_EVERY_MS;
        const at = reset > now ? Math.min(reset, nextQuarter) : nextQuarter;
        this.#timer = setTimeout(
            () => {
                void this.refresh().then(() => this.#arm());
            },
            at - now + Math.random() * JITTER_MAX_MS,
        );
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

/** Compares versions, which only rise, or else times: a quota from Postgres has no comparable version. */
function isNewer(quota: Quota, known: Quota): boolean {
    const compares = quota.source === "redis" && known.source === "redis";
    if (compares && quota.version !== known.version) return quota.version > known.version;
    // An expired hold or a new day changes the numbers but not the version.
    return Date.parse(quota.asOf) > Date.parse(known.asOf);
}
