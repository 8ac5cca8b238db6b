/** The result of a price replay, and the same as a file. */

import type { Replayed } from "./api.js";
import { usePage } from "./context.js";
import { Table } from "./parts.js";
import { csvOf } from "./replayCsv.js";

type Sums = Replayed["total"];

export function ReplayResult({ result }: { result: Replayed }) {
    const { text, number, time } = usePage();
    const download = () => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([csvOf(result)], { type: "text/csv" }));
        link.download = `price-replay-${result.from}-${result.to}.csv`;
        link.click();
        URL.revokeObjectURL(link.href);
    };
    const limitName = (limit: string) => (limit === "quota" || limit === "model" ? text.limits[limit] : limit);
    const denying = result.levels.flatMap((level) =>
        level.limits
            .filter(({ messages }) => messages > 0)
            .map((limit) => ({ ...limit, level: level.membershipLevel })),
    );
    const firsts = result.levels.flatMap((level) =>
        level.firstDenials.map((first) => ({ ...first, level: level.membershipLevel })),
    );
    const sums = (of: Sums) => [
        number(of.users),
        number(of.messages),
        number(of.ap),
        number(of.proposedAp),
        number(of.overage),
        number(of.proposedOverage),
        number(of.deniedUsers),
        number(of.deniedMessages),
        number(of.deniedAp),
    ];
    return (
        <>
            <p className="choices">
                {result.from} – {result.to} ({result.timeZone})
                <button type="button" className="qg-button" onClick={download}>
                    {text.download}
                </button>
            </p>
            <Table
                label={text.part.replay}
                head={[
                    text.level,
                    text.users,
                    text.messages,
                    text.chargedAp,
                    text.proposed,
                    text.overage,
                    text.proposedOverage,
                    text.deniedUsers,
                    text.deniedMessages,
                    text.deniedAp,
                ]}
            >
                {[
                    ...result.levels.map((level) => [level.membershipLevel, level] as const),
                    [text.total, result.total] as const,
                ].map(([name, of]) => (
                    <tr key={name}>
                        <th scope="row">{name}</th>
                        {sums(of).map((sum, at) => (
                            <td key={at}>{sum}</td>
                        ))}
                    </tr>
                ))}
            </Table>
            {result.notes.map((note) => (
                <p key={note} className="muted">
                    {note}
                </p>
            ))}
            {result.total.deniedMessages === 0 ? (
                <p className="good">{text.noDenials}</p>
            ) : (
                <>
                    <h3>{text.byLimit}</h3>
                    <Table label={text.byLimit} head={[text.level, text.limit, text.deniedUsers, text.deniedMessages]}>
                        {denying.map(({ level, limit, users, messages }) => (
                            <tr key={`${level} ${limit}`}>
                                <th scope="row">{level}</th>
                                <td>{limitName(limit)}</td>
                                <td>{number(users)}</td>
                                <td>{number(messages)}</td>
                            </tr>
                        ))}
                    </Table>
                    <h3>{text.firstDenials}</h3>
                    <Table label={text.firstDenials} head={[text.level, text.day, text.users]}>
                        {firsts.map(({ level, day, users }) => (
                            <tr key={`${level} ${day}`}>
                                <th scope="row">{level}</th>
                                <td>{day}</td>
                                <td>{number(users)}</td>
                            </tr>
                        ))}
                    </Table>
                    <h3>{text.mostAffected}</h3>
                    <Table
                        label={text.mostAffected}
                        head={[
                            text.user,
                            text.level,
                            text.firstDeniedAt,
                            text.messages,
                            text.chargedAp,
                            text.proposed,
                            text.deniedMessages,
                            text.deniedAp,
                        ]}
                    >
                        {result.mostAffected.map((user) => (
                            <tr key={user.userUuid}>
                                <th scope="row">
                                    <a href={`#/users/${encodeURIComponent(user.userUuid)}`}>{user.userUuid}</a>
                                </th>
                                <td>{user.membershipLevel}</td>
                                <td>{time(user.firstDeniedAt)}</td>
                                <td>{number(user.messages)}</td>
                                <td>{number(user.ap)}</td>
                                <td>{number(user.proposedAp)}</td>
                                <td>{number(user.deniedMessages)}</td>
                                <td>{number(user.deniedAp)}</td>
                            </tr>
                        ))}
                    </Table>
                </>
            )}
        </>
    );
}
