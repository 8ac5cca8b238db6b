"use client";

/** What would let a denied message pass: as buttons if the page can do it, else as text. */

import type { Remedy } from "@quota-gate/client";
import { useId } from "react";
import { useNumber, useShared } from "./context.js";
import { momentText } from "./derive.js";
import { useNow } from "./hooks.js";

interface RemediesProps {
    remedies: Remedy[];
    onRemedy?: ((remedy: Remedy) => void) | undefined;
}

export function Remedies({ remedies, onRemedy }: RemediesProps) {
    const { locale, messages } = useShared();
    const number = useNumber();
    const now = useNow();
    const id = useId();
    if (remedies.length === 0) return null;
    const textOf = (remedy: Remedy): string => {
        switch (remedy.kind) {
            case "wait":
                return messages.waitUntil(momentText(remedy.until, locale, now));
            case "model":
                return messages.useModel(remedy.model, number(remedy.ap));
            case "pack":
                return messages.buyPack(number(remedy.ap));
            case "level":
                return messages.takeLevel(messages.level(remedy.membershipLevel), number(remedy.monthlyQuota));
        }
    };
    return (
        <>
            <h3 id={id} className="qg-what-helps">
                {messages.whatHelps}
            </h3>
            <ul className="qg-remedies" aria-labelledby={id}>
                {remedies.map((remedy) => (
                    <li key={remedy.kind}>
                        {onRemedy && remedy.kind !== "wait" ? (
                            <button type="button" className="qg-button" onClick={() => onRemedy(remedy)}>
                                {textOf(remedy)}
                            </button>
                        ) : (
                            textOf(remedy)
                        )}
                    </li>
                ))}
            </ul>
        </>
    );
}
