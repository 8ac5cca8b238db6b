"use client";

/** Shows why a message was denied and what helps. Offers to continue as soon as the quota covers the message. */

import type { Remedy } from "@quota-gate/client";
import { useEffect, useId, useRef, useState } from "react";
import { useNumber, useShared } from "./context.js";
import { availableOf, relativeText, resetText } from "./derive.js";
import { type Denial, useChatQuota, useNow } from "./hooks.js";
import { Remedies } from "./Remedies.js";

export interface QuotaExceededDialogProps {
    /** Null closes the dialog. */
    denial: Denial | null;
    onClose: () => void;
    /** Called when the quota covers the message and the user continues. */
    onContinue?: () => void;
    /** Uses the model, sells the pack or changes the level of a remedy. Without it, remedies are only named. */
    onRemedy?: (remedy: Remedy) => void;
    /** URL of the plans. */
    pricingUrl?: string;
}

export function QuotaExceededDialog({ denial, onClose, onContinue, onRemedy, pricingUrl }: QuotaExceededDialogProps) {
    const { locale, messages } = useShared();
    const number = useNumber();
    const { quota, refresh, blockedBy } = useChatQuota();
    const now = useNow();
    const dialog = useRef<HTMLDialogElement>(null);
    const titleId = useId();
    const bodyId = useId();
    const [isChecking, setIsChecking] = useState(false);
    const isOpen = denial !== null;

    useEffect(() => {
        const element = dialog.current;
        if (isOpen && element && !element.open) {
            // The browser keeps the focus inside, closes on Escape, and restores the focus.
            element.showModal();
            void refresh();
        }
        if (!isOpen && element?.open) element.close();
    }, [isOpen, refresh]);

    // The quota may cover the AP while a limit of requests or of concurrency still binds.
    const stillBinds = denial?.limits?.some(
        ({ name, unit }) => unit !== "ap" && quota?.limits?.some((now) => now.name === name && now.remaining === 0),
    );
    const isReady = denial !== null && quota !== undefined && !blockedBy(denial.required) && !stillBinds;
    const check = async () => {
        setIsChecking(true);
        await refresh();
        setIsChecking(false);
    };
    // The quota is newer than the denial.
    const { recommendedUpgrade: upgrade } = quota ?? denial ?? { recommendedUpgrade: null };
    const available = quota ? availableOf(quota) : (denial?.remaining ?? 0);
    const remedies = denial?.remedies ?? [];
    return (
        <dialog
            ref={dialog}
            className="qg-dialog"
            aria-labelledby={titleId}
            aria-describedby={bodyId}
            onClose={onClose}
        >
            {denial && (
                <>
                    <h2 id={titleId}>{isReady ? messages.readyTitle : messages.exceededTitle}</h2>
                    <p id={bodyId} role="status">
                        {isReady
                            ? messages.readyBody(number(available))
                            : messages.exceededBody(number(denial.required), number(available))}
                    </p>
                    {!isReady && (
                        <>
                            <dl className="qg-numbers">
                                <Fact name={messages.required} value={number(denial.required)} />
                                <Fact name={messages.available} value={number(available)} />
                                <Fact
                                    name={messages.shortfall}
                                    value={number(Math.max(0, denial.required - available))}
                                />
                            </dl>
                            <Remedies remedies={remedies} onRemedy={onRemedy} />
                            {upgrade && remedies.length === 0 && (
                                <p className="qg-upgrade">
                                    {messages.upgrade(
                                        messages.level(upgrade.membershipLevel),
                                        number(upgrade.monthlyQuota),
                                        number(upgrade.additionalAp),
                                    )}
                                </p>
                            )}
                            {quota && remedies.length === 0 && (
                                <p className="qg-note">
                                    {messages.resets(
                                        resetText(quota, locale),
                                        relativeText(quota.quotaResetAt, locale, now),
                                    )}
                                </p>
                            )}
                            <p className="qg-note">{messages.notCharged}</p>
                        </>
                    )}
                    <div className="qg-actions">
                        <button type="button" className="qg-button" onClick={() => dialog.current?.close()}>
                            {messages.close}
                        </button>
                        {isReady ? (
                            <button
                                type="button"
                                className="qg-button qg-primary"
                                onClick={() => {
                                    dialog.current?.close();
                                    onContinue?.();
                                }}
                            >
                                {messages.continue}
                            </button>
                        ) : (
                            <>
                                <button
                                    type="button"
                                    className="qg-button"
                                    aria-disabled={isChecking}
                                    onClick={() => !isChecking && void check()}
                                >
                                    {isChecking ? messages.checking : messages.checkAgain}
                                </button>
                                {upgrade && pricingUrl && !onRemedy && (
                                    <a
                                        className="qg-button qg-primary"
                                        href={pricingUrl}
                                        onClick={() => dialog.current?.close()}
                                    >
                                        {messages.seePlans}
                                    </a>
                                )}
                            </>
                        )}
                    </div>
                </>
            )}
        </dialog>
    );
}

function Fact({ name, value }: { name: string; value: string }) {
    return (
        <div>
            <dt>{name}</dt>
            <dd>{value} AP</dd>
        </div>
    );
}
