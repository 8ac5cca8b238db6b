/** One user: quota, holds, Redis and Postgres, months, messages and changes. Refreshes every two seconds. */

import { useState } from "react";
import { ChangesOf } from "./Changes.js";
import { useAsked, usePage } from "./context.js";
import { Grants } from "./Grants.js";
import { Holds } from "./Holds.js";
import { LevelChange } from "./LevelChange.js";
import { OwnQuota } from "./OwnQuota.js";
import { Facts, Pages, Table, Trouble } from "./parts.js";

const LOOK_EVERY_MS = 2000;

export function User({ name }: { name: string }) {
    const { api, text, number, time } = usePage();
    const { data, error, again } = useAsked(`user ${name}`, () => api.user(name), LOOK_EVERY_MS);
    const [changed, setChanged] = useState(0);
    const done = () => {
        again();
        setChanged((now) => now + 1);
    };
    if (!data) return <Trouble error={error} />;
    const { quota, comparison, months } = data;
    // Postgres does not know the holds.
    const knowsHolds = quota.source === "redis";
    const own = quota.ownQuota === true ? ` (${text.own})` : "";
    const limit = quota.unlimited === true ? text.actions.unlimited : number(quota.monthlyQuota) + own;
    return (
        <>
            <h2>{name}</h2>
            <Trouble error={error} />
            <section className="panel" aria-labelledby="quota-title">
                <h3 id="quota-title">{text.quota}</h3>
                <Facts
                    facts={[
                        [text.level, quota.membershipLevel + (data.pendingLevel ? ` → ${data.pendingLevel}` : "")],
                        [text.period, quota.period],
                        [text.used, `${number(quota.monthlyUsed)} / ${limit}`],
                        ...(quota.blocked === true ? [[text.blocked, text.yes] as [string, string]] : []),
                        [text.held, number(knowsHolds ? quota.held : null)],
                        [text.remaining, number(quota.remaining)],
                        [text.usedToday, number(quota.todayUsed)],
                        [text.usedEver, number(quota.totalUsed)],
                        [text.resetsAt, time(quota.quotaResetAt)],
                    ]}
                />
                <h3>{text.bothStores}</h3>
                {comparison ? (
                    <>
                        <Facts
                            facts={[
                                [
                                    "Redis",
                                    comparison.redis
                                        ? `${number(comparison.redis.monthlyUsed)} (${comparison.redis.period})`
                                        : text.notInRedis,
                                ],
                                [
                                    "Postgres",
                                    `${number(comparison.postgres.monthlyUsed)} (${comparison.postgres.period})`,
                                ],
                                [text.onItsWay, number(comparison.unflushed)],
                            ]}
                        />
                        {comparison.drift === null ? (
                            <p className="good">{text.noDrift}</p>
                        ) : (
                            <p role="alert" className="trouble">
                                {text.drift} {comparison.drift}
                            </p>
                        )}
                    </>
                ) : (
                    <p>{text.cannotCompare}</p>
                )}
            </section>
            <Holds user={name} holds={knowsHolds ? data.holds : undefined} onReleased={done} />
            <Grants user={name} onChanged={done} />
            <LevelChange key={data.levelVersion} user={name} quota={quota} onChanged={done} />
            <OwnQuota key={`own ${data.levelVersion}`} user={name} quota={quota} onChanged={done} />
            <section className="panel" aria-labelledby="months-title">
                <h3 id="months-title">{text.months}</h3>
                {months.length === 0 ? (
                    <p>{text.noMonths}</p>
                ) : (
                    <Table label={text.months} head={[text.period, text.level, text.used, text.quota, text.overage]}>
                        {months.map((month) => (
                            <tr key={month.period}>
                                <th scope="row">{month.period}</th>
                                <td>{month.membershipLevel}</td>
                                <td>{number(month.used)}</td>
                                <td>{number(month.monthlyQuota)}</td>
                                <td>{number(month.overage)}</td>
                            </tr>
                        ))}
                    </Table>
                )}
            </section>
            <Messages user={name} used={quota.totalUsed} />
            <ChangesOf user={name} round={changed} />
        </>
    );
}

function Messages({ user, used }: { user: string; used: number }) {
    const { api, text, number, time } = usePage();
    const [after, setAfter] = useState("");
    const { data, error } = useAsked(
        JSON.stringify(["messages", user, after, used]),
        () => api.messages(user, { after, limit: 20 }),
        LOOK_EVERY_MS,
    );
    return (
        <section className="panel" aria-labelledby="messages-title">
            <h3 id="messages-title">{text.messages}</h3>
            <Trouble error={error} />
            {data && (
                <>
                    <Table
                        label={text.messages}
                        head={[text.at, text.kind, text.model, text.session, "AP", text.overage, text.tokens]}
                    >
                        {data.messages.map((message) => (
                            <tr key={message.usageId}>
                                <th scope="row">{time(message.at)}</th>
                                <td>{text.kinds[message.kind] ?? message.kind}</td>
                                <td>{message.model ?? text.unnamed}</td>
                                <td>{message.sessionId}</td>
                                <td>{number(message.ap)}</td>
                                <td>{number(message.overage)}</td>
                                <td>{number(message.tokens)}</td>
                            </tr>
                        ))}
                    </Table>
                    <Pages next={data.next} after={after} onGo={setAfter} />
                </>
            )}
        </section>
    );
}
