/** Searches users by ID prefix and level. */

import { useState } from "react";
import { usePage, useAsked } from "./context.js";
import { Pages, Table, Trouble } from "./parts.js";

export function Users() {
    const { api, text, number, time } = usePage();
    const [prefix, setPrefix] = useState("");
    const [level, setLevel] = useState("");
    const [after, setAfter] = useState("");
    const { data: status, error: statusError } = useAsked("levels", () => api.status());
    const levels = status?.levels ?? [];
    const { data, error } = useAsked(JSON.stringify(["users", prefix, level, after]), () =>
        api.users({ prefix, level, after }),
    );
    return (
        <>
            <form className="choices" role="search" onSubmit={(event) => event.preventDefault()}>
                <label>
                    {text.findUser}{" "}
                    <input
                        type="search"
                        value={prefix}
                        maxLength={128}
                        onChange={(event) => {
                            setPrefix(event.target.value);
                            setAfter("");
                        }}
                    />
                </label>
                <label>
                    {text.level}{" "}
                    <select
                        value={level}
                        onChange={(event) => {
                            setLevel(event.target.value);
                            setAfter("");
                        }}
                    >
                        <option value="">{text.anyLevel}</option>
                        {levels.map(({ membershipLevel }) => (
                            <option key={membershipLevel}>{membershipLevel}</option>
                        ))}
                    </select>
                </label>
            </form>
            <Trouble error={error ?? statusError} />
            {data && (
                <>
                    <Table
                        label={text.part.users}
                        head={[text.user, text.level, text.used, text.quota, text.usedEver, text.changed]}
                    >
                        {data.users.map((user) => (
                            <tr key={user.userUuid}>
                                <th scope="row">
                                    <a href={`#/users/${encodeURIComponent(user.userUuid)}`}>{user.userUuid}</a>
                                </th>
                                <td>
                                    {user.membershipLevel}
                                    {user.pendingLevel !== null && ` → ${user.pendingLevel}`}
                                </td>
                                <td>{number(user.monthlyUsed)}</td>
                                <td>{number(user.monthlyQuota)}</td>
                                <td>{number(user.totalUsed)}</td>
                                <td>{time(user.updatedAt)}</td>
                            </tr>
                        ))}
                    </Table>
                    {data.users.length === 0 && <p>{text.noUsers}</p>}
                    <Pages next={data.next} after={after} onGo={setAfter} />
                </>
            )}
        </>
    );
}
