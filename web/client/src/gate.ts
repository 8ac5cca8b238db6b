/** The gate, as services and browsers ask it. */

import { watch } from "./events.js";
import { Transport, type TransportOptions } from "./transport.js";
import type { Accepted, Committed, Consumed, MembershipChanged, Quota, Released, Reservation } from "./types.js";

/** A message that is to be charged. */
export interface Message {
    userUuid: string;
    /** The conversation. */
    sessionId: string;
    /** What it costs at most, in AP; 1 when not given. */
    ap?: number;
}

/** What a message did cost. */
export interface Cost {
    /** In AP; all that is held when not given. */
    ap?: number;
    /** Tokens that the model counted. */
    tokens?: number;
    /** The model that wrote the answer, for the usage log. */
    model?: string;
}

/** For one request. */
export interface RequestOptions {
    signal?: AbortSignal;
    /** Makes it safe to send again; made up when not given. */
    idempotencyKey?: string;
}

/** For a generation. */
export interface WithQuotaOptions {
    signal?: AbortSignal;
    /** How long a hold lives between two extensions, in seconds: 1 to 900, 60 by default. */
    ttlSeconds?: number;
}

/** What a generation is given. */
export interface Generation {
    /** Null where the rollout let the message through: nothing is held. */
    readonly reservation: Reservation;
    /** Says what it did cost. Said more than once, the last one counts. */
    spent(cost: Cost): void;
}

/** A quota gate. Its methods may be called at the same time. */
export class QuotaGate {
    readonly #transport: Transport;

    constructor(options: TransportOptions) {
        this.#transport = new Transport(options);
    }

    /** A user's quota: the caller's own, or, for a service, that of the user it names. */
    quota(user?: string, options: { signal?: AbortSignal } = {}): Promise<Quota> {
        return this.#transport.ask({ method: "GET", path: "/api/chat/quota", user, repeatable: true, ...options });
    }

    /** The user's quota, now and after each change, until the signal says otherwise. */
    watch(user?: string, options: { signal?: AbortSignal } = {}): AsyncGenerator<Quota> {
        return watch(this.#transport, user, options.signal);
    }

    /**
     * Charges a message.
     * @throws QuotaExceededError if the quota does not cover it
     */
    consume(message: Message & Omit<Cost, "ap">, options: RequestOptions = {}): Promise<Consumed> {
        return this.#keyed("/api/chat/quota/consume", message, options);
    }

    /**
     * Holds AP for a message, until it is committed, released, or its time is over.
     * @throws QuotaExceededError if the quota does not cover it
     */
    reserve(message: Message & { ttlSeconds?: number }, options: RequestOptions = {}): Promise<Reservation> {
        return this.#keyed("/api/chat/quota/reservations", message, options);
    }

    /** Charges what was generated and gives the rest back. Safe to repeat. */
    commit(
        reservationId: string,
        cost: Cost = {},
        options: { signal?: AbortSignal } = {},
    ): Promise<Committed | Accepted> {
        return this.#settle(reservationId, "commit", cost, options);
    }

    /** Gives the AP back, because nothing was generated. Safe to repeat. */
    release(reservationId: string, options: { signal?: AbortSignal } = {}): Promise<Released | Accepted> {
        return this.#settle(reservationId, "release", undefined, options);
    }

    /** Holds for longer. The answer has another id: use it from now on. */
    extend(reservationId: string, ttlSeconds?: number, options: { signal?: AbortSignal } = {}): Promise<Reservation> {
        return this.#settle(reservationId, "extend", ttlSeconds === undefined ? {} : { ttlSeconds }, options);
    }

    /** Gives a user another level (scope `admin`). */
    changeMembership(userUuid: string, membershipLevel: string, effective?: "now"): Promise<MembershipChanged> {
        const body = { userUuid, membershipLevel, ...(effective && { effective }) };
        return this.#transport.ask({ method: "PUT", path: "/api/chat/quota/membership", body, repeatable: true });
    }

    /**
     * Generates with quota: holds AP, runs `generate`, and settles by what becomes of it. What it returns is charged, what it throws
     * costs nothing; the hold is extended for as long as it runs.
     * @throws QuotaExceededError if the quota does not cover it; then nothing was run
     */
    async withQuota<T>(
        message: Message,
        generate: (generation: Generation) => Promise<T>,
        options: WithQuotaOptions = {},
    ): Promise<T> {
        const { signal, ttlSeconds = 60 } = options;
        const reservation = await this.reserve({ ...message, ttlSeconds }, signal ? { signal } : {});
        if (reservation.reservationId === null) return generate({ reservation, spent() {} });
        let id = reservation.reservationId;
        let cost: Cost = {};
        let isGenerated = false;
        const heartbeat = setInterval(() => {
            this.extend(id, ttlSeconds).then(
                (extended) => {
                    id = extended.reservationId ?? id;
                },
                // What is generated can still be committed.
                () => undefined,
            );
        }, ttlSeconds * 500);
        try {
            const generated = await generate({
                reservation,
                spent(spent) {
                    cost = spent;
                },
            });
            isGenerated = true;
            clearInterval(heartbeat);
            await this.commit(id, cost);
            return generated;
        } catch (error) {
            clearInterval(heartbeat);
            // A commit that failed is not taken back: it may have arrived.
            if (!isGenerated) await this.release(id).catch(() => undefined);
            throw error;
        }
    }

    #keyed<T>(path: string, body: unknown, options: RequestOptions): Promise<T> {
        const idempotencyKey = options.idempotencyKey ?? crypto.randomUUID();
        return this.#transport.ask({
            method: "POST",
            path,
            body,
            idempotencyKey,
            repeatable: true,
            signal: options.signal,
        });
    }

    #settle<T>(id: string, what: string, body: unknown, options: { signal?: AbortSignal }): Promise<T> {
        const path = `/api/chat/quota/reservations/${encodeURIComponent(id)}/${what}`;
        return this.#transport.ask({ method: "POST", path, body, repeatable: true, ...options });
    }
}
