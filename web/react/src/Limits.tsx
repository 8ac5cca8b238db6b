"use client";

/** The limits beside the quota, and grants: what is left of each, and until when. */

import type { Limit, LiveGrant, Quota } from "@quota-gate/client";
import { useNumber, useShared } from "./context.js";
import { lengthText, momentText, shorterLimits } from "./derive.js";
import { useNow } from "./hooks.js";

export function Limits({ quota }: { quota: Quota }) {
    const limits = shorterLimits(quota);
    const grants = (quota.grants ?? []).filter(({ left }) => left > 0);
    if (limits.length + grants.length === 0 && !quota.fallback) return null;
    return (
        <ul className="qg-limits">
            {limits.map((limit) => (
                <LimitRow key={limit.name} limit={limit} />
            ))}
            {grants.map((grant, at) => (
                <GrantRow key={at} grant={grant} />
            ))}
            {quota.fallback && <FallbackRow model={quota.fallback} />}
        </ul>
    );
}

function LimitRow({ limit: { name, unit, limit, held, remaining, resetsAt } }: { limit: Limit }) {
    const { locale, messages } = useShared();
    const number = useNumber();
    const now = useNow();
    if (unit === "holds") return <li>{messages.concurrency(number(held), number(limit))}</li>;
    const write = unit === "requests" ? messages.windowRequests : messages.window;
    const share = limit === 0 ? 1 : 1 - remaining / limit;
    return (
        <li data-empty={remaining === 0 || undefined}>
            {write(number(remaining), number(limit), lengthText(name, locale))}
            {resetsAt !== null && <span> · {messages.windowResets(momentText(resetsAt, locale, now))}</span>}
            {/* The text has its numbers. */}
            <div className="qg-meter" aria-hidden="true">
                <div className="qg-fill" style={{ inlineSize: `${share * 100}%` }} />
            </div>
        </li>
    );
}

function GrantRow({ grant: { left, expiresAt } }: { grant: LiveGrant }) {
    const { locale, messages } = useShared();
    const number = useNumber();
    const now = useNow();
    return <li>{messages.extra(number(left), expiresAt === null ? undefined : momentText(expiresAt, locale, now))}</li>;
}

function FallbackRow({ model }: { model: string }) {
    const { messages } = useShared();
    return <li>{messages.fallback(model)}</li>;
}
