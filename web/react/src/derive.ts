/** Pure functions of a quota: whether it covers a message, how much is used, when it resets. */

import type { Quota } from "@quota-gate/client";
import type { QuotaState } from "./store.js";

/** Why a message cannot be sent. */
export type Blocked = "exhausted" | "tooExpensive";

/** How close the user is to the limit. */
export type Level = Quota["status"];

/** Returns why a message of this cost cannot be sent. An unknown quota blocks nothing: the gate decides. */
export function blockedBy(state: QuotaState, cost: number): Blocked | undefined {
    if (!state.quota) return undefined;
    // Pending AP are not subtracted: `remaining` excludes the AP of a message as soon as the gate holds them.
    if (state.quota.remaining >= cost) return undefined;
    return state.quota.remaining === 0 ? "exhausted" : "tooExpensive";
}

/** Returns the share of the quota that is used or held, 0 to 1. */
export function fillOf(quota: Quota): number {
    if (quota.monthlyQuota === 0) return 1;
    return Math.min(1, Math.max(0, 1 - quota.remaining / quota.monthlyQuota));
}

/**
 * Formats the reset time in the quota's time zone and names the zone, which may differ from the user's. Uses UTC if the
 * browser does not know the zone. Returns an invalid time unchanged.
 */
export function resetText(quota: Quota, locale: string): string {
    const at = new Date(quota.quotaResetAt);
    if (Number.isNaN(at.getTime())) return quota.quotaResetAt;
    const format = (timeZone: string) =>
        new Intl.DateTimeFormat(locale, {
            timeZone,
            year: "numeric",
            month: "short",
            day: "numeric",
            hour: "2-digit",
            minute: "2-digit",
            timeZoneName: "short",
        }).format(at);
    try {
        return format(quota.timeZone);
    } catch {
        return format("UTC");
    }
}

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
    ["day", 86_400_000],
    ["hour", 3_600_000],
    ["minute", 60_000],
];

/** Formats the time left, as in `in 8 days`. Rounds up, so that users do not return too early. */
export function relativeText(at: string, locale: string, now: number): string {
    const left = Math.max(0, Date.parse(at) - now);
    const format = new Intl.RelativeTimeFormat(locale, { numeric: "always" });
    for (const [unit, ms] of UNITS) if (left >= ms) return format.format(Math.ceil(left / ms), unit);
    return format.format(1, "minute");
}
