/** Changes a user's level. */

import { useState } from "react";
import type { LevelForecast, User } from "./api.js";
import { ChangeForm, Comparison, type How } from "./ChangeForm.js";
import { useAsked, usePage } from "./context.js";

interface LevelChangeProps {
    user: string;
    quota: User["quota"];
    onChanged: () => void;
}

export function LevelChange({ user, quota, onChanged }: LevelChangeProps) {
    const { api, text } = usePage();
    const { data: status, error } = useAsked("levels", () => api.status());
    const levels = status?.levels ?? [];
    const [level, setLevel] = useState("");
    const [isNow, setIsNow] = useState(false);

    const send = (how: How) =>
        api.changeLevel(user, { membershipLevel: level, ...how, ...(isNow && { effective: "now" as const }) });
    const fields = (
        <>
            <label>
                {text.newLevel}{" "}
                <select required value={level} onChange={(event) => setLevel(event.target.value)}>
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
                <input type="checkbox" checked={isNow} onChange={(event) => setIsNow(event.target.checked)} />{" "}
                {text.alsoDownNow}
            </label>
        </>
    );
    return (
        <ChangeForm
            title={text.changeLevel}
            fields={fields}
            values={`${level} ${isNow}`}
            send={send}
            forecastOf={(forecast) => <Forecast forecast={forecast} knowsHolds={quota.source === "redis"} />}
            onChanged={onChanged}
            error={error}
        />
    );
}

function Forecast({ forecast, knowsHolds }: { forecast: LevelForecast; knowsHolds: boolean }) {
    const { before, after, effectiveAt } = forecast;
    const { text, number, time } = usePage();
    return (
        <>
            <Comparison
                before={before}
                after={after}
                rows={[
                    [text.level, (of) => of.membershipLevel + (of.pendingLevel ? ` → ${of.pendingLevel}` : "")],
                    [text.quota, (of) => number(of.monthlyQuota)],
                    [text.used, (of) => number(of.monthlyUsed)],
                    [text.held, (of) => number(knowsHolds ? of.held : null)],
                    [text.remaining, (of) => number(of.remaining)],
                ]}
            />
            <p>{effectiveAt === null ? text.holdsAtOnce : `${text.holdsFrom} ${time(effectiveAt)}`}</p>
        </>
    );
}
