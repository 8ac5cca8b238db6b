/** Shows and changes the rollout. */

import { type FormEvent, useState } from "react";
import type { Rollout as RolloutAnswer } from "./api.js";
import { useAsked, usePage } from "./context.js";
import { Facts, Reason, Table, Trouble } from "./parts.js";

const MODES = ["off", "shadow", "enforce"] as const;
type Mode = (typeof MODES)[number];

export function Rollout() {
    const { api, text, number, time } = usePage();
    const { data, error, again } = useAsked("rollout", () => api.rollout(), 5000);
    if (!data) return <Trouble error={error} />;
    return (
        <>
            <Trouble error={error} />
            <section className="panel" aria-labelledby="rollout-title">
                <h2 id="rollout-title">{text.part.rollout}</h2>
                <Facts
                    facts={[
                        [text.mode, text.modes[data.mode]],
                        [text.percentage, `${number(data.percentage)} %`],
                        [text.alwaysIn, data.alwaysIn.join(", ") || text.none],
                        [text.alwaysOut, data.alwaysOut.join(", ") || text.none],
                        [text.letThrough, number(data.tally.out)],
                        [text.shadowDenied, number(data.tally.shadowDenied)],
                    ]}
                />
            </section>
            <Change now={data} onChanged={again} />
            <Table label={text.part.changes} head={[text.at, text.who, text.reason, text.mode, text.percentage]}>
                {data.changes.map((change) => (
                    <tr key={change.at}>
                        <th scope="row">{time(change.at)}</th>
                        <td>{change.by}</td>
                        <td>{change.reason}</td>
                        <td>{text.modes[change.mode]}</td>
                        <td>{number(change.percentage)} %</td>
                    </tr>
                ))}
            </Table>
        </>
    );
}

function Change({ now, onChanged }: { now: RolloutAnswer; onChanged: () => void }) {
    const { api, text } = usePage();
    const [mode, setMode] = useState<Mode>(now.mode);
    const [percentage, setPercentage] = useState(String(now.percentage));
    const [reason, setReason] = useState("");
    const [error, setError] = useState<Error>();
    const change = async (event: FormEvent) => {
        event.preventDefault();
        try {
            await api.changeRollout({ mode, percentage: Number(percentage), reason });
            setReason("");
            setError(undefined);
        } catch (refused) {
            setError(refused as Error);
        }
        onChanged();
    };
    return (
        <section className="panel" aria-labelledby="change-title">
            <h2 id="change-title">{text.changeRollout}</h2>
            <form className="choices" onSubmit={(event) => void change(event)}>
                <label>
                    {text.mode}{" "}
                    <select value={mode} onChange={(event) => setMode(event.target.value as Mode)}>
                        {MODES.map((one) => (
                            <option key={one} value={one}>
                                {text.modes[one]}
                            </option>
                        ))}
                    </select>
                </label>
                <label>
                    {text.percentage}{" "}
                    <input
                        type="number"
                        required
                        min={0}
                        max={100}
                        step="any"
                        value={percentage}
                        onChange={(event) => setPercentage(event.target.value)}
                    />
                </label>
                <Reason value={reason} onChange={setReason} />
                <button type="submit" className="qg-button">
                    {text.apply}
                </button>
            </form>
            <Trouble error={error} />
        </section>
    );
}
