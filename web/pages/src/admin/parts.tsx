/** Components shared by the views: scrolling table, paging, errors, reason of a change, list of facts. */

import type { ReactNode } from "react";
import { usePage } from "./context.js";

/** A table that scrolls on its own, because it may be wider than the page. */
export function Table({ label, head, children }: { label: string; head: string[]; children: ReactNode }) {
    return (
        <div className="scroll" role="group" aria-label={label} tabIndex={0}>
            <table>
                <thead>
                    <tr>
                        {head.map((name) => (
                            <th key={name} scope="col">
                                {name}
                            </th>
                        ))}
                    </tr>
                </thead>
                <tbody>{children}</tbody>
            </table>
        </div>
    );
}

/** Buttons for the next and the first page. The gate's lists have no previous page. */
export function Pages({ next, after, onGo }: { next: string | null; after: string; onGo: (after: string) => void }) {
    const { text } = usePage();
    if (next === null && after === "") return null;
    return (
        <p className="choices">
            <button type="button" className="qg-button" disabled={after === ""} onClick={() => onGo("")}>
                {text.first}
            </button>
            <button type="button" className="qg-button" disabled={next === null} onClick={() => onGo(next ?? "")}>
                {text.next}
            </button>
        </p>
    );
}

export function Trouble({ error }: { error: Error | undefined }) {
    const { text } = usePage();
    return error ? (
        <p role="alert" className="trouble">
            {text.trouble} {error.message}
        </p>
    ) : null;
}

/** The reason of a change. The gate requires and stores it. */
export function Reason({ value, onChange }: { value: string; onChange: (reason: string) => void }) {
    const { text } = usePage();
    return (
        <label>
            {text.reason}{" "}
            <input required maxLength={160} value={value} onChange={(event) => onChange(event.target.value)} />
        </label>
    );
}

export function Facts({ facts }: { facts: [string, ReactNode][] }) {
    return (
        <dl className="facts">
            {facts.map(([name, value]) => (
                <div key={name}>
                    <dt>{name}</dt>
                    <dd>{value}</dd>
                </div>
            ))}
        </dl>
    );
}
