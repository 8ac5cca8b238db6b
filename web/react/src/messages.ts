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
    /** Of a window of AP; `every` is its length. */
    window: (remaining: string, limit: string, every: string) => string;
    windowRequests: (remaining: string, limit: string, every: string) => string;
    concurrency: (held: string, limit: string) => string;
    /** After the text of a window that is running. */
    windowResets: (at: string) => string;
    /** A grant, such as a pack, that expires or not. */
    extra: (left: string, expires: string | undefined) => string;
    fallback: (model: string) => string;
    refresh: string;
    level: (level: string) => string;
    announcement: (level: Exclude<Level, "ok">, remaining: string) => string;
    exceededTitle: string;
    exceededBody: (required: string, remaining: string) => string;
    required: string;
    available: string;
    shortfall: string;
    upgrade: (level: string, quota: string, additional: string) => string;
    whatHelps: string;
    waitUntil: (at: string) => string;
    useModel: (model: string, ap: string) => string;
    buyPack: (ap: string) => string;
    takeLevel: (level: string, quota: string) => string;
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
    window: (remaining, limit, every) => `${remaining} of ${limit} AP left for ${every}`,
    windowRequests: (remaining, limit, every) => `${remaining} of ${limit} messages left for ${every}`,
    concurrency: (held, limit) => `${held} of ${limit} answers in progress`,
    windowResets: (at) => `resets at ${at}`,
    extra: (left, expires) => `${left} extra AP${expires === undefined ? "" : `, until ${expires}`}`,
    fallback: (model) => `Until then, ${model} answers.`,
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
    whatHelps: "What you can do",
    waitUntil: (at) => `Try again at ${at}`,
    useModel: (model, ap) => `Use ${model} (${ap} AP)`,
    buyPack: (ap) => `Buy a pack of ${ap} AP`,
    takeLevel: (level, quota) => `Upgrade to ${level} (${quota} AP a month)`,
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
            : why === "requests"
              ? "You have sent as many messages as you can for now. Your message is kept."
              : `This message costs ${cost} AP, and ${remaining} AP are left. Your message is kept.`,
    notSent: "The message was not sent. Nothing was charged, and your message is kept.",
    failed: "The answer failed. Your message is kept.",
};
