"use client";

/** Displays the remaining AP, the used AP and the time of the reset; windows and grants, if the user has some. */

import { useId } from "react";
import { useNumber, useShared } from "./context.js";
import { fillOf, relativeText, resetText } from "./derive.js";
import { useChatQuota, useNow, useThresholdAnnouncement } from "./hooks.js";
import { Limits } from "./Limits.js";

export interface ChatQuotaDisplayProps {
    /** Shows only the meter and the remaining AP. */
    compact?: boolean;
    className?: string;
}

export function ChatQuotaDisplay({ compact = false, className }: ChatQuotaDisplayProps) {
    const { store, locale, messages } = useShared();
    const number = useNumber();
    const { status, quota, pending, refresh } = useChatQuota();
    const announcement = useThresholdAnnouncement();
    const now = useNow();
    const id = useId();
    if (!store) return null;
    const root = {
        className: `qg-display${compact ? " qg-compact" : ""}${className ? ` ${className}` : ""}`,
        "data-status": status,
        "aria-label": messages.quota,
    };
    const troubles = { stale: messages.stale, error: messages.unavailable, signedOut: messages.signedOut };
    const trouble = status === "loading" || status === "ready" ? undefined : troubles[status];
    if (!quota) {
        return (
            <section {...root} aria-busy={status === "loading"}>
                <p className="qg-note">{trouble ?? messages.loading}</p>
                {trouble && <Refresh label={messages.refresh} refresh={refresh} />}
            </section>
        );
    }
    const left = messages.remaining(number(quota.remaining), number(quota.monthlyQuota));
    const reset = messages.resets(resetText(quota, locale), relativeText(quota.quotaResetAt, locale, now));
    return (
        <section {...root} data-level={quota.status}>
            <div className="qg-head">
                <strong id={id} className="qg-left">
                    {left}
                </strong>
                <span className="qg-badge">{messages.level(quota.membershipLevel)}</span>
            </div>
            <div
                className="qg-meter"
                role="meter"
                aria-label={messages.quota}
                aria-valuemin={0}
                aria-valuemax={quota.monthlyQuota}
                aria-valuenow={Math.min(quota.remaining, quota.monthlyQuota)}
                aria-valuetext={`${left}. ${reset}`}
            >
                <div className="qg-fill" style={{ inlineSize: `${fillOf(quota) * 100}%` }} />
            </div>
            {!compact && (
                <>
                    <ul className="qg-facts">
                        <li>{messages.used(number(quota.monthlyUsed))}</li>
                        <li>{messages.today(number(quota.todayUsed))}</li>
                        {quota.held > 0 && <li>{messages.held(number(quota.held))}</li>}
                        {pending > 0 && <li>{messages.pending(number(pending))}</li>}
                    </ul>
                    <p className="qg-note">{reset}</p>
                    <Limits quota={quota} />
                </>
            )}
            {trouble && (
                <p className="qg-note">
                    {trouble} <Refresh label={messages.refresh} refresh={refresh} />
                </p>
            )}
            <p className="qg-announcement" role="status">
                {announcement}
            </p>
        </section>
    );
}

function Refresh({ label, refresh }: { label: string; refresh: () => Promise<void> }) {
    return (
        <button type="button" className="qg-link" onClick={() => void refresh()}>
            {label}
        </button>
    );
}
