/** All texts, in English. Another language or wording can replace any of them. */

import type { Blocked, Level } from "./derive.js";

/** Texts of the components. Numbers are passed in formatted. */
export interface Messages {
    quota: string;
    loading: string;
    unavailable: string;
    stale: string;
    signedOut: string;
    remaining: (remaining: string, total: string) => string;
    used: (used: string) => string;
    today: (used: string) => string;
    held: (held: string) => string;
    pending: (pending: string) => string;
    resets: (at: string, relative: string) => string;
    refresh: string;
    level: (level: string) => string;
    announcement: (level: Exclude<Level, "ok">, remaining: string) => string;
    exceededTitle: string;
    exceededBody: (required: string, remaining: string) => string;
    required: string;
    available: string;
    shortfall: string;
    upgrade: (level: string, quota: string, additional: string) => string;
    seePlans: string;
    checkAgain: string;
    checking: string;
    notCharged: string;
    close: string;
    readyTitle: string;
    readyBody: (remaining: string) => string;
    continue: string;
    message: string;
    placeholder: string;
    send: string;
    cost: (ap: string) => string;
    blocked: (why: Blocked, cost: string, remaining: string) => string;
    /** After a denial. */
    notSent: string;
    /** After another failure: whether it was charged is unknown. */
    failed: string;
}

export const en: Messages = {
    quota: "Chat quota",
    loading: "Loading your quota…",
    unavailable: "Your quota is not available right now.",
    stale: "These numbers may be slightly out of date.",
    signedOut: "Sign in again to see your quota.",
    remaining: (remaining, total) => `${remaining} of ${total} AP left`,
    used: (used) => `${used} AP used this month`,
    today: (used) => `${used} AP used today`,
    held: (held) => `${held} AP held for answers in progress`,
    pending: (pending) => `${pending} AP pending`,
    resets: (at, relative) => `Resets ${relative}, on ${at}`,
    refresh: "Check again",
    level: (level) => level,
    announcement: (level, remaining) =>
        level === "exhausted"
            ? "Your chat quota is used up."
            : level === "critical"
              ? `Only ${remaining} AP of your chat quota are left.`
              : `You have used more than 80% of your chat quota. ${remaining} AP are left.`,
    exceededTitle: "Your chat quota does not cover this message",
    exceededBody: (required, remaining) => `It costs ${required} AP, and you have ${remaining} AP left.`,
    required: "Required",
    available: "Available",
    shortfall: "Missing",
    upgrade: (level, quota, additional) => `With ${level} you have ${quota} AP a month, ${additional} more than now.`,
    seePlans: "See plans",
    checkAgain: "Check again",
    checking: "Checking…",
    notCharged: "Nothing was charged, and your message is kept.",
    close: "Close",
    readyTitle: "You can continue",
    readyBody: (remaining) => `Your quota now covers this message: ${remaining} AP are left.`,
    continue: "Continue",
    message: "Message",
    placeholder: "Write a message",
    send: "Send",
    cost: (ap) => `Costs ${ap} AP`,
    blocked: (why, cost, remaining) =>
        why === "exhausted"
            ? "Your chat quota is used up. Your message is kept."
            : `This message costs ${cost} AP, and ${remaining} AP are left. Your message is kept.`,
    notSent: "The message was not sent. Nothing was charged, and your message is kept.",
    failed: "The answer failed. Your message is kept.",
};
