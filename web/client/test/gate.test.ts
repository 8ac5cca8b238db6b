import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { QuotaExceededError, QuotaGate, QuotaGateError } from "../src/index.js";
import { admin, balance, eventually, losingProxy, message, newUser, service, serviceToken, url } from "./running.js";

describe("messages", () => {
    test("consume charges a message, and a denial throws an error with its numbers", async () => {
        const user = newUser();
        const charged = await service.consume({ ...message(user, 95), tokens: 7 });
        expect(charged).toMatchObject({ allowed: true, charged: 95, passed: null, quota: { remaining: 5 } });
        const denied = await service.consume(message(user, 6)).catch((error: unknown) => error);
        expect(denied).toBeInstanceOf(QuotaExceededError);
        expect(denied).toMatchObject({ status: 429, required: 6, remaining: 5, shortfall: 1 });
        expect((denied as QuotaExceededError).recommendedUpgrade?.membershipLevel).toBe("basic");
        expect((denied as QuotaExceededError).requestId).toMatch(/./);
        const kinds = (denied as QuotaExceededError).remedies.map(({ kind }) => kind);
        expect(kinds).toEqual(["wait", "pack", "level"]);
        expect(await balance(user)).toEqual([95, 0]);
    });

    test("a reservation is committed or released, and a repeated commit is replayed", async () => {
        const user = newUser();
        const { reservationId } = await service.reserve(message(user, 10));
        expect(await balance(user)).toEqual([0, 10]);
        for (const replayed of [false, true]) {
            expect(await service.commit(reservationId ?? "", { ap: 4 })).toMatchObject({ charged: 4, replayed });
        }
        await expect(service.release(reservationId ?? "")).rejects.toMatchObject({ code: "CONFLICT" });
        const other = await service.reserve(message(user, 10));
        await service.release(other.reservationId ?? "");
        expect(await balance(user)).toEqual([4, 0]);
    });

    test("a retry after a lost answer sends the same key and is charged once", async () => {
        const user = newUser();
        const proxy = await losingProxy(2);
        const gate = new QuotaGate({ url: proxy.url, token: serviceToken });
        const charged = await gate.consume(message(user, 7));
        proxy.close();
        expect(charged).toMatchObject({ charged: 7, replayed: true });
        expect(proxy.seen).toHaveLength(3);
        expect(new Set(proxy.seen).size).toBe(1);
        expect(await balance(user)).toEqual([7, 0]);
    });

    test("an error without any answer is indeterminate", async () => {
        const proxy = await losingProxy(9);
        const gate = new QuotaGate({ url: proxy.url, token: serviceToken, retries: 1 });
        await expect(gate.consume(message(newUser(), 1))).rejects.toMatchObject({
            code: "NO_ANSWER",
            indeterminate: true,
        });
        proxy.close();
    });

    test("a request ends at its timeout or when its signal aborts", async () => {
        const server = createServer(() => undefined);
        await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
        const port = (server.address() as AddressInfo).port;
        const gate = new QuotaGate({ url: `http://127.0.0.1:${port}`, timeoutMs: 50, retries: 1 });
        await expect(gate.quota("u")).rejects.toThrow("no answer within 50 ms");
        const patient = new QuotaGate({ url: `http://127.0.0.1:${port}`, timeoutMs: 60_000 });
        const controller = new AbortController();
        const asking = patient.quota("u", { signal: controller.signal });
        controller.abort();
        await expect(asking).rejects.toMatchObject({ name: "AbortError" });
        server.closeAllConnections();
        server.close();
    });

    test("a token function renews a rejected token, for a request, a charge and a stream", async () => {
        const user = newUser();
        const rejected: (string | undefined)[] = [];
        let token = "expired";
        const gate = new QuotaGate({
            url,
            token: (old) => {
                rejected.push(old);
                if (old !== undefined) token = serviceToken;
                return token;
            },
        });
        expect((await gate.quota(user)).monthlyUsed).toBe(0);
        expect(rejected).toEqual([undefined, "expired"]);
        token = "expired again";
        await gate.consume(message(user, 3));
        token = "expired again";
        for await (const quota of gate.watch(user)) {
            expect(quota.monthlyUsed).toBe(3);
            break;
        }
        expect(rejected.filter(Boolean)).toEqual(["expired", "expired again", "expired again"]);
    });

    test("a token that cannot be renewed is an error of status 401", async () => {
        const token = (old?: string) => {
            if (old !== undefined) throw new Error("the session is over");
            return "expired";
        };
        await expect(new QuotaGate({ url, token }).quota("u")).rejects.toMatchObject({ status: 401 });
    });

    test("a rejected request is not retried", async () => {
        let asked = 0;
        const counting: typeof fetch = (...request) => {
            asked++;
            return fetch(...request);
        };
        const stranger = new QuotaGate({ url, token: () => "made up", fetch: counting });
        await expect(stranger.quota("u")).rejects.toMatchObject({ status: 401, code: "UNAUTHENTICATED" });
        expect(asked).toBe(1);
    });
});

describe("withQuota", () => {
    test("charges the actual cost of the answer", async () => {
        const user = newUser();
        const text = await service.withQuota(message(user, 10), async ({ reservation, spent }) => {
            expect(reservation.ap).toBe(10);
            expect(await balance(user)).toEqual([0, 10]);
            spent({ ap: 3, tokens: 512 });
            return "an answer";
        });
        expect(text).toBe("an answer");
        expect(await balance(user)).toEqual([3, 0]);
    });

    test("charges nothing for a failure, whatever error it throws", async () => {
        const user = newUser();
        const failures = [
            new Error("the model failed"),
            new QuotaGateError("another gate", { status: 503, code: "NO_ANSWER" }),
        ];
        for (const failure of failures) {
            const failing = service.withQuota(message(user, 10), () => Promise.reject(failure));
            await expect(failing).rejects.toBe(failure);
            expect(await balance(user)).toEqual([0, 0]);
        }
    });

    test("does not generate beyond the quota", async () => {
        const generate = () => Promise.reject(new Error("it ran"));
        await expect(service.withQuota(message(newUser(), 101), generate)).rejects.toBeInstanceOf(QuotaExceededError);
    });

    test("extends the hold of a long generation", async () => {
        const user = newUser();
        const { reservationId, expiresAt } = await service.reserve({ ...message(user, 1), ttlSeconds: 1 });
        await service.release(reservationId ?? "");
        const over = Date.parse(expiresAt ?? "") + 1500;
        const long = service.withQuota(
            message(user, 10),
            () => eventually("the first TTL is over", async () => Date.now() > over),
            { ttlSeconds: 1 },
        );
        await long;
        expect(await balance(user)).toEqual([10, 0]);
    });
});

describe("watch", () => {
    test("yields each change, with versions that never fall, until the signal aborts", async () => {
        const user = newUser();
        const controller = new AbortController();
        const seen: number[] = [];
        let version = 0;
        for await (const quota of service.watch(user, { signal: controller.signal })) {
            expect(quota.version).toBeGreaterThanOrEqual(version);
            version = quota.version;
            seen.push(quota.remaining);
            if (seen.length === 1) await service.consume(message(user, 30));
            if (quota.remaining === 70) await admin.changeLevel(user, "basic");
            if (quota.membershipLevel === "basic") controller.abort();
        }
        expect(seen[0]).toBe(100);
        expect(seen.at(-1)).toBe(270);
    });

    test("rejects a caller with an invalid token", async () => {
        const stranger = new QuotaGate({ url, token: "made up" });
        await expect(stranger.watch("u").next()).rejects.toMatchObject({ status: 401 });
    });
});
