/** Health of the gate: problems, partitions, resets, dead letters, and whether Redis and Postgres agree. */

import { useState } from "react";
import type { Drift, Status as StatusAnswer } from "./api.js";
import { useAsked, usePage } from "./context.js";
import { Facts, Table, Trouble } from "./parts.js";

const LOOK_EVERY_MS = 2000;

export function Status() {
    const { api, text, number, time } = usePage();
    const { data, error } = useAsked("status", () => api.status(), LOOK_EVERY_MS);
    if (!data) return <Trouble error={error} />;
    const lag = (of: (lag: { events: number; seconds: number }) => number) =>
        data.partitions.map((partition) => (partition.flushLag ? of(partition.flushLag) : 0));
    const lengths = data.partitions.map(({ streamLength }) => streamLength ?? 0);
    return (
        <>
            <Trouble error={error} />
            <section className="panel" aria-labelledby="state-title">
                <h2 id="state-title">{text.state}</h2>
                {data.problems.length === 0 ? (
                    <p className="good">{text.allWell}</p>
                ) : (
                    <ul role="alert" className="trouble">
                        {data.problems.map((problem) => (
                            <li key={problem}>{problem}</li>
                        ))}
                    </ul>
                )}
                <Facts
                    facts={[
                        [text.version, data.version],
                        ["Redis", data.redisAnswers ? text.answers : text.isAway],
                        [text.lagEvents, number(sum(lag(({ events }) => events)))],
                        [text.lagSeconds, number(Math.max(0, ...lag(({ seconds }) => seconds)))],
                        [text.streamLength, number(sum(lengths))],
                        [text.generation, number(Math.max(0, ...data.partitions.map(({ generation }) => generation)))],
                        [text.dueRows, number(data.dueRows)],
                        [text.inbox, number(data.inbox)],
                        [text.deadLetters, number(data.deadLetters)],
                    ]}
                />
            </section>
            <DriftCheck />
            <section className="panel" aria-labelledby="partitions-title">
                <h2 id="partitions-title">{text.partitions}</h2>
                <Table
                    label={text.partitions}
                    head={[
                        text.partition,
                        text.generation,
                        text.openedAt,
                        text.streamLength,
                        text.lagEvents,
                        text.lagSeconds,
                    ]}
                >
                    {data.partitions.map((partition) => (
                        <tr key={partition.number}>
                            <th scope="row">{partition.number}</th>
                            <td>
                                {number(partition.generation)} {partition.isOpening && text.isOpening}
                            </td>
                            <td>{time(partition.openedAt)}</td>
                            <td>{partition.streamLength === null ? "?" : number(partition.streamLength)}</td>
                            <td>{partition.flushLag === null ? "?" : number(partition.flushLag.events)}</td>
                            <td>{partition.flushLag === null ? "?" : number(partition.flushLag.seconds)}</td>
                        </tr>
                    ))}
                </Table>
            </section>
            <Resets runs={data.resetRuns} />
            <DeadLetters letters={data.newestDeadLetters} />
        </>
    );
}

function Resets({ runs }: { runs: StatusAnswer["resetRuns"] }) {
    const { text, number, time } = usePage();
    return (
        <section className="panel" aria-labelledby="resets-title">
            <h2 id="resets-title">{text.resets}</h2>
            {runs.length === 0 && <p>{text.noResets}</p>}
            <Table label={text.resets} head={[text.at, text.trigger, text.rows, text.failedRows, text.finishedAt]}>
                {runs.map((run) => (
                    <tr key={run.startedAt + run.trigger}>
                        <th scope="row">{time(run.startedAt)}</th>
                        <td>{run.trigger}</td>
                        <td>{number(run.resetCount)}</td>
                        <td>{number(run.failedCount)}</td>
                        <td>{run.finishedAt === null ? text.notFinished : time(run.finishedAt)}</td>
                    </tr>
                ))}
            </Table>
        </section>
    );
}

function DeadLetters({ letters }: { letters: StatusAnswer["newestDeadLetters"] }) {
    const { text, number, time } = usePage();
    return (
        <section className="panel" aria-labelledby="letters-title">
            <h2 id="letters-title">{text.deadLetters}</h2>
            {letters.length === 0 ? (
                <p>{text.noDeadLetters}</p>
            ) : (
                <>
                    <p>{text.deadLettersHint}</p>
                    <Table label={text.deadLetters} head={[text.at, text.user, "AP", text.why]}>
                        {letters.map((letter) => (
                            <tr key={letter.id}>
                                <th scope="row">{time(letter.at)}</th>
                                <td>{letter.userUuid ?? "?"}</td>
                                <td>{letter.ap === null ? "?" : number(letter.ap)}</td>
                                <td>{letter.reason}</td>
                            </tr>
                        ))}
                    </Table>
                </>
            )}
        </section>
    );
}

/** Compares all users in Redis and Postgres, one page at a time. */
function DriftCheck() {
    const { api, text, number } = usePage();
    const [found, setFound] = useState<{ users: number; differences: Drift["differences"]; isDone: boolean }>();
    const [error, setError] = useState<Error>();
    const check = async () => {
        let [users, after, differences]: [number, string | null, Drift["differences"]] = [0, "", []];
        setError(undefined);
        try {
            while (after !== null) {
                const page: Drift = await api.drift({ after, limit: 200 });
                users += page.users;
                differences = [...differences, ...page.differences];
                after = page.next;
                setFound({ users, differences, isDone: after === null });
            }
        } catch (refused) {
            setError(refused as Error);
        }
    };
    return (
        <section className="panel" aria-labelledby="drift-title">
            <h2 id="drift-title">{text.bothStores}</h2>
            <p>{text.driftHint}</p>
            <button
                type="button"
                className="qg-button"
                disabled={found !== undefined && !found.isDone && !error}
                onClick={() => void check()}
            >
                {text.compare}
            </button>
            <Trouble error={error} />
            {found && (
                <p role="status" className={found.differences.length === 0 ? "good" : "trouble"}>
                    {text.compared(number(found.users), number(found.differences.length))}{" "}
                    {!found.isDone && text.goingOn}
                </p>
            )}
            {found && found.differences.length > 0 && (
                <Table label={text.bothStores} head={[text.user, text.period, "Redis", "Postgres", text.why]}>
                    {found.differences.map((one) => (
                        <tr key={one.userUuid}>
                            <th scope="row">
                                <a href={`#/users/${encodeURIComponent(one.userUuid)}`}>{one.userUuid}</a>
                            </th>
                            <td>{one.period}</td>
                            <td>{number(one.redisUsed)}</td>
                            <td>{number(one.postgresUsed)}</td>
                            <td>{one.reason}</td>
                        </tr>
                    ))}
                </Table>
            )}
        </section>
    );
}

function sum(of: number[]): number {
    return of.reduce((total, value) => total + value, 0);
}
