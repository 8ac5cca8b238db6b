/** Gives a user a quota of the user's own, blocks or unblocks. */

import { useState } from "react";
import type { OwnQuota as Wanted, User, UserChange } from "./api.js";
import { ChangeForm, Comparison, type How } from "./ChangeForm.js";
import { usePage } from "./context.js";

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
    const isPossible: Record<Action, boolean> = {
        own: true,
        unlimited: quota.unlimited !== true,
        level: quota.ownQuota === true,
        block: quota.blocked !== true,
        unblock: quota.blocked === true,
    };

    const send = (how: How): Promise<UserChange> => {
        if (action === "block" || action === "unblock") return api.block(user, { blocked: action === "block", ...how });
        const wanted: Wanted["quota"] = action === "level" ? null : action === "unlimited" ? "unlimited" : Number(ap);
        return api.changeQuota(user, { quota: wanted, ...how });
    };
    const fields = (
        <>
            <label>
                {text.what}{" "}
                <select value={action} onChange={(event) => setAction(event.target.value as Action)}>
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
                        onChange={(event) => setAp(event.target.value)}
                    />
                </label>
            )}
        </>
    );
    return (
        <ChangeForm
            title={text.ownQuotaOrBlock}
            fields={fields}
            values={`${action} ${ap}`}
            send={send}
            forecastOf={(forecast) => <Forecast forecast={forecast} />}
            onChanged={onChanged}
        />
    );
}

function Forecast({ forecast: { before, after } }: { forecast: UserChange }) {
    const { text, number } = usePage();
    return (
        <>
            <Comparison
                before={before}
                after={after}
                rows={[
                    [text.quota, (of) => number(of.monthlyQuota)],
                    [text.used, (of) => number(of.monthlyUsed)],
                    [text.remaining, (of) => number(of.remaining)],
                    [text.blocked, (of) => (of.blocked === true ? text.yes : text.no)],
                ]}
            />
            <p>{text.holdsAtOnce}</p>
        </>
    );
}
