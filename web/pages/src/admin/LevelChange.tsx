/** Changes a user's level: first a preview, then the change, with a reason. */

import { type FormEvent, useState } from "react";
import { type LevelForecast, Refused, type User } from "./api.js";
import { useAsked, usePage } from "./context.js";
import { Reason, Table, Trouble } from "./parts.js";

interface LevelChangeProps {
    user: string;
    quota: User["quota"];
    onChanged: () => void;
}

export function LevelChange({ user, quota, onChanged }: LevelChangeProps) {
    const { api, text, time } = usePage();
    const { data: status, error: statusError } = useAsked("levels", () => api.status());
    const levels = status?.levels ?? [];
    const [level, setLevel] = useState("");
    const [isNow, setIsNow] = useState(false);
    const [reason, setReason] = useState("");
    const [forecast, setForecast] = useState<LevelForecast>();
    const [error, setError] = useState<Error>();
    const wanted = { membershipLevel: level, reason, ...(isNow && { effective: "now" as const }) };

    const preview = async (event: FormEvent) => {
        event.preventDefault();
        try {
            setForecast(await api.changeLevel(user, { ...wanted, preview: true }));
            setError(undefined);
        } catch (refused) {
            setError(refused as Error);
        }
    };
    const apply = async () => {
        try {
            await api.changeLevel(user, { ...wanted, preview: false, ifLevelVersion: forecast?.levelVersion ?? null });
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
        <section className="panel" aria-labelledby="level-title">
            <h3 id="level-title">{text.changeLevel}</h3>
            <form className="choices" onSubmit={(event) => void preview(event)}>
                <label>
                    {text.newLevel}{" "}
                    <select required value={level} onChange={(event) => change(() => setLevel(event.target.value))}>
                        <option value="" />
                        {levels
                            .filter(({ membershipLevel }) => membershipLevel !== quota.membershipLevel)
                            .map(({ membershipLevel, monthlyQuota }) => (
                                <option key={membershipLevel} value={membershipLevel}>
                                    {membershipLevel} ({monthlyQuota} AP)
                                </option>
                            ))}
                    </select>
                </label>
                <label>
                    <input
                        type="checkbox"
                        checked={isNow}
                        onChange={(event) => change(() => setIsNow(event.target.checked))}
                    />{" "}
                    {text.alsoDownNow}
                </label>
                <Reason value={reason} onChange={setReason} />
                <button type="submit" className="qg-button">
                    {text.preview}
                </button>
            </form>
            <Trouble error={error ?? statusError} />
            {forecast && (
                <div className="forecast">
                    <Forecast forecast={forecast} knowsHolds={quota.source === "redis"} />
                    <p>
                        {forecast.effectiveAt === null
                            ? text.holdsAtOnce
                            : `${text.holdsFrom} ${time(forecast.effectiveAt)}`}
                    </p>
                    <button type="button" className="qg-button" disabled={!reason.trim()} onClick={() => void apply()}>
                        {text.apply}
                    </button>
                </div>
            )}
        </section>
    );
}

function Forecast({ forecast, knowsHolds }: { forecast: LevelForecast; knowsHolds: boolean }) {
    const { before, after } = forecast;
    const { text, number } = usePage();
    const level = (of: typeof before) => of.membershipLevel + (of.pendingLevel ? ` → ${of.pendingLevel}` : "");
    const rows: [string, (of: typeof before) => string][] = [
        [text.level, level],
        [text.quota, (of) => number(of.monthlyQuota)],
        [text.used, (of) => number(of.monthlyUsed)],
        [text.held, (of) => number(knowsHolds ? of.held : null)],
        [text.remaining, (of) => number(of.remaining)],
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
