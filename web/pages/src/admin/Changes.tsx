/** Who changed what, and why. */

import { useState } from "react";
import type { Change } from "./api.js";
import { useAsked, usePage } from "./context.js";
import { Pages, Table, Trouble } from "./parts.js";

export function Changes() {
    const { text } = usePage();
    return (
        <>
            <h2>{text.part.changes}</h2>
            <List />
        </>
    );
}

/** The changes of one user. Reloads when `round` changes. */
export function ChangesOf({ user, round }: { user: string; round: number }) {
    const { text } = usePage();
    return (
        <section className="panel" aria-labelledby="changes-title">
            <h3 id="changes-title">{text.part.changes}</h3>
            <List user={user} round={round} />
        </section>
    );
}

function List({ user, round = 0 }: { user?: string; round?: number }) {
    const { api, text, time } = usePage();
    const [after, setAfter] = useState("");
    const { data, error } = useAsked(JSON.stringify(["changes", user, after, round]), () =>
        api.changes({ user, after, limit: 20 }),
    );
    const what = useWhat();
    if (!data) return <Trouble error={error} />;
    return (
        <>
            <Trouble error={error} />
            <Table
                label={text.part.changes}
                head={[text.at, text.who, ...(user === undefined ? [text.user] : []), text.what, text.reason]}
            >
                {data.changes.map((change) => (
                    <tr key={change.at + change.kind + (change.userUuid ?? "")}>
                        <th scope="row">{time(change.at)}</th>
                        <td>{change.by}</td>
                        {user === undefined && (
                            <td>
                                {change.userUuid !== null && (
                                    <a href={`#/users/${encodeURIComponent(change.userUuid)}`}>{change.userUuid}</a>
                                )}
                            </td>
                        )}
                        <td>{what(change)}</td>
                        <td>{change.reason}</td>
                    </tr>
                ))}
            </Table>
            {data.changes.length === 0 && <p>{text.noChanges}</p>}
            <Pages next={data.next} after={after} onGo={setAfter} />
        </>
    );
}

function useWhat(): (change: Change) => string {
    const { text, number } = usePage();
    return (change) => {
        switch (change.kind) {
            case "level": {
                const later = change.effectivePeriod === null ? "" : ` (${text.from} ${change.effectivePeriod})`;
                return `${change.levelBefore ?? text.unknown} → ${change.levelAfter ?? text.unknown}${later}`;
            }
            case "quota": {
                const quota = (ap: number | null | undefined) =>
                    ap === null || ap === undefined ? text.actions.level : `${number(ap)} AP`;
                return `${text.quota}: ${quota(change.quotaBefore)} → ${quota(change.quotaAfter)}`;
            }
            case "blocked":
                return text.actions.block;
            case "unblocked":
                return text.actions.unblock;
            case "forgotten":
                return text.forgotten;
            case "hold_released":
                return `${text.released}: ${number(change.ap)} AP`;
            case "granted":
                return `${text.granted}: ${number(change.ap)} AP`;
            case "grant_voided":
                return `${text.grantStates.voided}: ${number(change.ap)} AP`;
            case "rollout": {
                const mode = change.mode as keyof typeof text.modes | null;
                return `${text.part.rollout}: ${mode === null ? text.unknown : text.modes[mode]}, ${number(change.percentage)} %`;
            }
            default:
                return change.kind;
        }
    };
}
