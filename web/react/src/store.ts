/**
 * What is known of a user's quota, and how it stays true: a snapshot, the stream of changes, and another look whenever there is a
 * reason for one. Knows nothing of React.
 */

import type { Quota } from "@quota-gate/client";

/** Where quotas come from: a `QuotaGate`, or anything like it. */
export interface QuotaSource {
    quota(user?: string, options?: { signal?: AbortSignal }): Promise<Quota>;
    watch?(user?: string, options?: { signal?: AbortSignal }): AsyncIterable<Quota>;
}

/** `stale`: the quota is what was true a while ago, and cannot be looked up now. */
export type Status = "loading" | "ready" | "stale" | "error";

/** What is known. */
export interface QuotaState {
    readonly status: Status;
    readonly quota: Quota | undefined;
    /** AP of messages that were sent and that the gate has not answered yet. Never taken off `quota.remaining`. */
    readonly pending: number;
    readonly error: unknown;
}

/** How a store is made. */
export interface QuotaStoreOptions {
    source: QuotaSource;
    /** From the server that rendered the page: shown at once. */
    initialQuota?: Quota | undefined;
}

/** After a reset everybody would come at the same moment. */
const JITTER_MAX_MS = 3000;
/** Days begin on a quarter of an hour, in every time zone. */
const LOOK_EVERY_MS = 15 * 60 * 1000;
/** Coming back to a page twice in this time is coming back once. */
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

    /** For `useSyncExternalStore`. The first listener starts the store, the last one stops it. */
    readonly subscribe = (listener: () => void): (() => void) => {
        this.#listeners.add(listener);
        if (this.#users++ === 0) this.#stop = this.#start();
        return () => {
            this.#listeners.delete(listener);
            if (--this.#users === 0) this.#stop?.();
        };
    };

    readonly getSnapshot = (): QuotaState => this.#state;
    /** What the server rendered, so that the first render in the browser says the same. */
    readonly getServerSnapshot = (): QuotaState => this.#initial;

    /** Takes over a quota from anywhere, a chat's own stream for example. An older one changes nothing. */
    readonly apply = (quota: Quota): void => {
        const known = this.#state.quota;
        if (known && !isNewer(quota, known)) {
            // Nothing new; but it says whether what is shown is still looked after.
            const isBehind = quota.source === "redis" && quota.version < known.version;
            if (!isBehind) this.#set({ status: statusOf(quota), error: undefined });
            return;
        }
        this.#set({ status: statusOf(quota), quota, error: undefined });
        this.#arm();
    };

    /** Looks the quota up now: at the end of an answer, after a denial, when somebody asks. */
    readonly refresh = (): Promise<void> => {
        this.#looking ??= this.#look().finally(() => {
            this.#looking = undefined;
        });
        return this.#looking;
    };

    /** A message of this cost is on its way. Call what comes back when it was answered. */
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
            // Without a stream the quota is looked up when there is a reason to.
        }
    }

    /** Another look when the period ends, and when a day may have begun. */
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

/** What Postgres says while Redis is away may be a moment behind. */
function statusOf(quota: Quota): Status {
    return quota.source === "redis" ? "ready" : "stale";
}

/** Versions only rise; what Postgres says while Redis is away has none that compares. */
function isNewer(quota: Quota, known: Quota): boolean {
    const compares = quota.source === "redis" && known.source === "redis";
    if (compares && quota.version !== known.version) return quota.version > known.version;
    // A hold that expired or a day that began changes numbers, and no version.
    return Date.parse(quota.asOf) > Date.parse(known.asOf);
}
