/** Replays the usage log with proposed levels and prices: a form, the result as tables, and a file. */

import { type FormEvent, useState } from "react";
import type { Replayed } from "./api.js";
import { useAsked, usePage } from "./context.js";
import { Trouble } from "./parts.js";
import { EMPTY_PRICE, type LevelFields, type PriceFields, proposalOf, WrongWindow } from "./proposal.js";
import { Prices } from "./ReplayPrices.js";
import { ReplayResult } from "./ReplayResult.js";

export function PriceReplay() {
    const { api, text } = usePage();
    const { data: status, error: statusError } = useAsked("levels", () => api.status());
    const [range, setRange] = useState(lastMonth);
    const [levels, setLevels] = useState<Record<string, LevelFields>>({});
    const [prices, setPrices] = useState<PriceFields[]>([]);
    const [isRunning, setIsRunning] = useState(false);
    const [result, setResult] = useState<Replayed>();
    const [error, setError] = useState<Error>();
    const fields = (status?.levels ?? []).map(
        ({ membershipLevel: name, monthlyQuota }) =>
            [name, levels[name] ?? { quota: String(monthlyQuota), windows: "" }] as const,
    );
    const replay = async (event: FormEvent) => {
        event.preventDefault();
        setIsRunning(true);
        setError(undefined);
        setResult(undefined);
        try {
            setResult(await api.replayPrices({ ...range, ...proposalOf(fields, prices) }));
        } catch (refused) {
            const wrong = refused instanceof WrongWindow ? new Error(text.windowsWrong(refused.given)) : refused;
            setError(wrong as Error);
        }
        setIsRunning(false);
    };
    const change = (name: string, now: LevelFields) => setLevels((before) => ({ ...before, [name]: now }));
    return (
        <>
            <section className="panel" aria-labelledby="replay-title">
                <h2 id="replay-title">{text.part.replay}</h2>
                <p className="muted">{text.replayHint}</p>
                <form className="forecast" onSubmit={(event) => void replay(event)}>
                    <div className="choices">
                        {(["from", "to"] as const).map((end) => (
                            <label key={end}>
                                {text[end]}{" "}
                                <input
                                    type="date"
                                    required
                                    value={range[end]}
                                    onChange={(event) => setRange({ ...range, [end]: event.target.value })}
                                />
                            </label>
                        ))}
                    </div>
                    {fields.map(([name, now]) => (
                        <fieldset key={name} className="choices">
                            <legend>{name}</legend>
                            <label>
                                {text.quota}{" "}
                                <input
                                    type="number"
                                    required
                                    min={0}
                                    value={now.quota}
                                    onChange={(event) => change(name, { ...now, quota: event.target.value })}
                                />
                            </label>
                            <label>
                                {text.windows}{" "}
                                <input
                                    value={now.windows}
                                    onChange={(event) => change(name, { ...now, windows: event.target.value })}
                                />
                            </label>
                        </fieldset>
                    ))}
                    <p className="muted">{text.windowsHint}</p>
                    <h3>{text.prices}</h3>
                    <p className="muted">{text.pricesHint}</p>
                    <Prices prices={prices} onChange={setPrices} />
                    <div className="choices">
                        <button
                            type="button"
                            className="qg-button"
                            onClick={() =>
                                setPrices([...prices, { ...EMPTY_PRICE, model: prices.length === 0 ? "default" : "" }])
                            }
                        >
                            {text.addPrice}
                        </button>
                        <button type="submit" className="qg-button" disabled={isRunning || !status}>
                            {isRunning ? text.replaying : text.replay}
                        </button>
                    </div>
                </form>
                <Trouble error={error ?? statusError} />
            </section>
            {result && <ReplayResult result={result} />}
        </>
    );
}

/** The last complete month. */
function lastMonth(): { from: string; to: string } {
    const now = new Date();
    const day = (month: number, of: number) =>
        new Date(Date.UTC(now.getFullYear(), month, of)).toISOString().slice(0, 10);
    return { from: day(now.getMonth() - 1, 1), to: day(now.getMonth(), 0) };
}
