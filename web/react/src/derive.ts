/** Pure functions of a quota: whether it covers a message, how much is used, when it resets. */

import type { Limit, Quota } from "@quota-gate/client";
import type { QuotaState } from "./store.js";

/** Why a message cannot be sent. */
export type Blocked = "exhausted" | "tooExpensive" | "requests";

/** How close the user is to the limit. */
export type Level = Quota["status"];

/** Returns the AP that a message may cost now: what the quota and all windows leave, and grants. */
export function availableOf(quota: Quota): number {
    const windows = (quota.limits ?? []).filter(({ unit }) => unit === "ap").map(({ remaining }) => remaining);
    return Math.min(quota.remaining, ...windows) + (quota.grantedRemaining ?? 0);
}

/**
 * Returns why a message of this cost cannot be sent. An unknown quota blocks nothing: the gate decides. Nor does an
 * exhausted one if another model answers then.
 */
export function blockedBy({ quota }: QuotaState, cost: number): Blocked | undefined {
    if (!quota) return undefined;
    if (quota.limits?.some(({ unit, remaining }) => unit === "requests" && remaining === 0)) return "requests";
    // Pending AP are not subtracted: `remaining` excludes the AP of a message as soon as the gate holds them.
    const available = availableOf(quota);
    if (available >= cost || quota.fallback) return undefined;
    return available === 0 ? "exhausted" : "tooExpensive";
}

/** Returns the limits that the quota's own numbers do not show: windows and concurrency. */
export function shorterLimits(quota: Quota): Limit[] {
    return (quota.limits ?? []).filter(({ name }) => name !== "monthly");
}

const WINDOW_UNITS: Record<string, string> = { m: "minute", h: "hour", d: "day" };

/** Formats the length of a window by its name: `5h-requests` as in `5 hours`. Returns another name unchanged. */
export function lengthText(name: string, locale: string): string {
    const [, count, letter = ""] = /^(\d+)([mhd])(?:-requests)?$/.exec(name) ?? [];
    const unit = WINDOW_UNITS[letter];
    if (unit === undefined) return name;
    return new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay: "long" }).format(Number(count));
}

const DAY_MS = 86_400_000;

/** Formats a moment in the browser's time zone: within a day only the time, later the date too. */
export function momentText(at: string, locale: string, now: number): string {
    const time = Date.parse(at);
    if (Number.isNaN(time)) return at;
    const date = time - now < DAY_MS ? {} : ({ year: "numeric", month: "short", day: "numeric" } as const);
    // Rounds up, so that users do not return too early.
    const minute = Math.ceil(time / 60_000) * 60_000;
    return new Intl.DateTimeFormat(locale, { ...date, hour: "2-digit", minute: "2-digit" }).format(minute);
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
