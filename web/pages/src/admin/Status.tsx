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
    const { partitions } = data;
    const events = partitions.map(({ flushLag }) => flushLag?.events);
    const seconds = partitions.map(({ flushLag }) => flushLag?.seconds);
    const lengths = partitions.map(({ streamLength }) => streamLength);
    const generations = partitions.map(({ generation }) => generation);
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
                        [text.lagEvents, number(known(events, sum))],
                        [text.lagSeconds, number(known(seconds, most))],
                        [text.streamLength, number(known(lengths, sum))],
                        [text.generation, number(known(generations, most))],
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
                    {partitions.map((partition) => (
                        <tr key={partition.number}>
                            <th scope="row">{partition.number}</th>
                            <td>
                                {number(partition.generation)} {partition.isOpening && text.isOpening}
                            </td>
                            <td>{time(partition.openedAt)}</td>
                            <td>{number(partition.streamLength)}</td>
                            <td>{number(partition.flushLag?.events)}</td>
                            <td>{number(partition.flushLag?.seconds)}</td>
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
                                <td>{letter.userUuid ?? text.unknown}</td>
                                <td>{number(letter.ap)}</td>
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
    const [found, setFound] = useState<{ users: number; differences: Drift["differences"] }>();
    const [isChecking, setIsChecking] = useState(false);
    const [error, setError] = useState<Error>();
    const check = async () => {
        let [users, after, differences]: [number, string | null, Drift["differences"]] = [0, "", []];
        setError(undefined);
        setFound(undefined);
        setIsChecking(true);
        try {
            while (after !== null) {
                const page: Drift = await api.drift({ after, limit: 200 });
                users += page.users;
                differences = [...differences, ...page.differences];
                after = page.next;
                setFound({ users, differences });
            }
        } catch (refused) {
            setError(refused as Error);
        }
        setIsChecking(false);
    };
    return (
        <section className="panel" aria-labelledby="drift-title">
            <h2 id="drift-title">{text.bothStores}</h2>
            <p>{text.driftHint}</p>
            <button type="button" className="qg-button" disabled={isChecking} onClick={() => void check()}>
                {text.compare}
            </button>
            <Trouble error={error} />
            {found && (
                <p role="status" className={found.differences.length === 0 ? "good" : "trouble"}>
                    {text.compared(number(found.users), number(found.differences.length))} {isChecking && text.goingOn}
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

/** Combines the values of all partitions. The result is unknown if a value is, or if there are no partitions. */
function known(values: (number | null | undefined)[], combine: (values: number[]) => number): number | undefined {
    const all = values.filter((value) => value !== null && value !== undefined);
    return all.length < values.length || all.length === 0 ? undefined : combine(all);
}

function sum(values: number[]): number {
    return values.reduce((total, value) => total + value, 0);
}

function most(values: number[]): number {
    return Math.max(...values);
}
