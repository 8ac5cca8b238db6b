/** Every state of every component, for the gallery and the tests. */

import type { Quota, Remedy } from "@quota-gate/client";
import type { ReactNode } from "react";
import { ChatInput, ChatQuotaDisplay, QuotaExceededDialog, type QuotaSource, QuotaStore } from "../src/index.js";

/** Returns a basic-level quota with the given remaining AP. */
export function quotaOf(remaining: number, change: Partial<Quota> = {}): Quota {
    const used = 300 - remaining;
    const share = used / 300;
    return {
        userUuid: "alice",
        membershipLevel: "basic",
        monthlyQuota: 300,
        monthlyUsed: used,
        held: 0,
        remaining,
        usagePercent: share * 100,
        todayUsed: 12,
        totalUsed: 4210,
        period: "2026-11",
        quotaResetAt: "2026-12-01T00:00:00Z",
        timeZone: "UTC",
        status: remaining === 0 ? "exhausted" : share > 0.95 ? "critical" : share > 0.8 ? "warn" : "ok",
        recommendedUpgrade: { membershipLevel: "plus", monthlyQuota: 1000, additionalAp: 700 },
        version: 1,
        asOf: "2026-11-23T10:00:00.000Z",
        source: "redis",
        ...change,
    };
}

/** Returns a source with a fixed answer or error. */
export function sourceOf(answer: Quota | Error): QuotaSource {
    return { quota: () => (answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer)) };
}

const never: QuotaSource = { quota: () => new Promise(() => undefined) };
const away = new Error("the gate is unavailable");
const storeOf = (quota: Quota) => new QuotaStore({ source: sourceOf(quota), initialQuota: quota });
const denial = {
    required: 50,
    remaining: 20,
    shortfall: 30,
    quotaResetAt: "2026-12-01T00:00:00Z",
    recommendedUpgrade: { membershipLevel: "plus", monthlyQuota: 1000, additionalAp: 700 },
};
const nothing = () => undefined;
/** A user whose window is exhausted, with a pack. */
const withWindow = (remaining: number, granted: number): Partial<Quota> => ({
    limits: [
        limit("monthly", "ap", 300, 241, "2026-12-01T00:00:00Z"),
        limit("1m-requests", "requests", 20, 17, null),
        limit("5h", "ap", 80, remaining, "2026-11-23T14:00:00.000Z"),
        limit("concurrency", "holds", 3, 2, null),
    ],
    ...(granted > 0 && {
        grants: [
            { left: granted, expiresAt: "2027-11-23T00:00:00.000Z", priority: 100 },
            { left: 7, expiresAt: null, priority: 100 },
        ],
        grantedRemaining: granted + 7,
    }),
});
const limit = (name: string, unit: string, of: number, remaining: number, resetsAt: string | null) => ({
    name,
    unit,
    limit: of,
    used: unit === "holds" ? 0 : of - remaining,
    held: unit === "holds" ? of - remaining : 0,
    remaining,
    resetsAt,
});
const remedies: Remedy[] = [
    { kind: "wait", until: "2026-11-23T14:05:00.000Z" },
    { kind: "model", model: "gpt-4o-mini", ap: 1 },
    { kind: "pack", pack: "price_1Xyz", ap: 500 },
    { kind: "level", membershipLevel: "plus", monthlyQuota: 1000 },
];

export interface Story {
    name: string;
    store: () => QuotaStore;
    show: () => ReactNode;
    /** Whether the story covers the rest of the page. */
    isModal?: boolean;
}

const display = () => <ChatQuotaDisplay />;
const input = (cost: number) => () => <ChatInput onSend={nothing} cost={cost} />;

export const stories: Story[] = [
    { name: "loading", store: () => new QuotaStore({ source: never }), show: display },
    { name: "error", store: () => new QuotaStore({ source: sourceOf(away) }), show: display },
    { name: "ok", store: () => storeOf(quotaOf(241)), show: display },
    { name: "held", store: () => storeOf(quotaOf(237, { held: 4 })), show: display },
    { name: "warn", store: () => storeOf(quotaOf(41)), show: display },
    { name: "critical", store: () => storeOf(quotaOf(9)), show: display },
    { name: "exhausted", store: () => storeOf(quotaOf(0)), show: display },
    {
        name: "stale",
        store: () => storeOf(quotaOf(41, { source: "postgres", asOf: "2026-11-23T10:00:01.000Z" })),
        show: display,
    },
    { name: "window and packs", store: () => storeOf(quotaOf(241, withWindow(12, 500))), show: display },
    { name: "window exhausted", store: () => storeOf(quotaOf(241, withWindow(0, 0))), show: display },
    { name: "fallback", store: () => storeOf(quotaOf(0, { fallback: "gpt-4o-mini" })), show: display },
    { name: "compact", store: () => storeOf(quotaOf(41)), show: () => <ChatQuotaDisplay compact /> },
    { name: "input", store: () => storeOf(quotaOf(41)), show: input(5) },
    { name: "input, too expensive", store: () => storeOf(quotaOf(20)), show: input(50) },
    { name: "input, exhausted", store: () => storeOf(quotaOf(0)), show: input(1) },
    {
        name: "dialog",
        store: () => storeOf(quotaOf(20)),
        show: () => <QuotaExceededDialog denial={denial} onClose={nothing} pricingUrl="#plans" />,
        isModal: true,
    },
    {
        name: "dialog, remedies",
        store: () => storeOf(quotaOf(20)),
        show: () => <QuotaExceededDialog denial={{ ...denial, remedies }} onClose={nothing} onRemedy={nothing} />,
        isModal: true,
    },
    {
        name: "dialog, remedies without buttons",
        store: () => storeOf(quotaOf(20)),
        show: () => <QuotaExceededDialog denial={{ ...denial, remedies }} onClose={nothing} pricingUrl="#plans" />,
        isModal: true,
    },
    {
        name: "dialog, ready",
        store: () => storeOf(quotaOf(900, { monthlyQuota: 1000, membershipLevel: "plus" })),
        show: () => <QuotaExceededDialog denial={denial} onClose={nothing} pricingUrl="#plans" />,
        isModal: true,
    },
];
