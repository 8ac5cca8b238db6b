/** Gives a user a quota of the user's own, blocks or unblocks: first a preview, then the change, with a reason. */

import { type FormEvent, useState } from "react";
import { type OwnQuota as Wanted, Refused, type User, type UserChange } from "./api.js";
import { usePage } from "./context.js";
import { Reason, Table, Trouble } from "./parts.js";

interface OwnQuotaProps {
    user: string;
    quota: User["quota"];
    onChanged: () => void;
}

/** What the form can do. `level` gives the level's quota again. */
const ACTIONS = ["own", "unlimited", "level", "block", "unblock"] as const;
type Action = (typeof ACTIONS)[number];

export function OwnQuota({ user, quota, onChanged }: OwnQuotaProps) {
    const { api, text } = usePage();
    const [action, setAction] = useState<Action>("own");
    const [ap, setAp] = useState("");
    const [reason, setReason] = useState("");
    const [forecast, setForecast] = useState<UserChange>();
    const [error, setError] = useState<Error>();
    const isPossible: Record<Action, boolean> = {
        own: true,
        unlimited: quota.unlimited !== true,
        level: quota.ownQuota === true,
        block: quota.blocked !== true,
        unblock: quota.blocked === true,
    };

    const send = (how: { preview: boolean; ifLevelVersion?: number | null }) => {
        if (action === "block" || action === "unblock") {
            return api.block(user, { blocked: action === "block", reason, ...how });
        }
        const wanted: Wanted["quota"] = action === "level" ? null : action === "unlimited" ? "unlimited" : Number(ap);
        return api.changeQuota(user, { quota: wanted, reason, ...how });
    };
    const preview = async (event: FormEvent) => {
        event.preventDefault();
        try {
            setForecast(await send({ preview: true }));
            setError(undefined);
        } catch (refused) {
            setError(refused as Error);
        }
    };
    const apply = async () => {
        try {
            await send({ preview: false, ifLevelVersion: forecast?.levelVersion ?? null });
            setError(undefined);
            setForecast(undefined);
            setReason("");
            onChanged();
        } catch (refused) {
            setForecast(undefined);
            setError(
                refused instanceof Refused && refused.status === 409 ? new Error(text.faster) : (refused as Error),
            );
        }
    };
    const change = (set: () => void) => {
        set();
        setForecast(undefined);
    };
    return (
        <section className="panel" aria-labelledby="own-title">
            <h3 id="own-title">{text.ownQuotaOrBlock}</h3>
            <form className="choices" onSubmit={(event) => void preview(event)}>
                <label>
                    {text.what}{" "}
                    <select value={action} onChange={(event) => change(() => setAction(event.target.value as Action))}>
                        {ACTIONS.filter((one) => isPossible[one]).map((one) => (
                            <option key={one} value={one}>
                                {text.actions[one]}
                            </option>
                        ))}
                    </select>
                </label>
                {action === "own" && (
                    <label>
                        AP{" "}
                        <input
                            type="number"
                            required
                            min={0}
                            max={2147483647}
                            value={ap}
                            onChange={(event) => change(() => setAp(event.target.value))}
                        />
                    </label>
                )}
                <Reason value={reason} onChange={setReason} />
                <button type="submit" className="qg-button">
                    {text.preview}
                </button>
            </form>
            <Trouble error={error} />
            {forecast && (
                <div className="forecast">
                    <Forecast forecast={forecast} />
                    <p>{text.holdsAtOnce}</p>
                    <button type="button" className="qg-button" disabled={!reason.trim()} onClick={() => void apply()}>
                        {text.apply}
                    </button>
                </div>
            )}
        </section>
    );
}

function Forecast({ forecast }: { forecast: UserChange }) {
    const { before, after } = forecast;
    const { text, number } = usePage();
    const rows: [string, (of: typeof before) => string][] = [
        [text.quota, (of) => number(of.monthlyQuota)],
        [text.used, (of) => number(of.monthlyUsed)],
        [text.remaining, (of) => number(of.remaining)],
        [text.blocked, (of) => (of.blocked === true ? text.yes : text.no)],
    ];
    return (
        <Table label={text.preview} head={["", text.before, text.after]}>
            {rows.map(([name, value]) => (
                <tr key={name}>
                    <th scope="row">{name}</th>
                    <td>{value(before)}</td>
                    <td>{value(after)}</td>
                </tr>
            ))}
        </Table>
    );
}
