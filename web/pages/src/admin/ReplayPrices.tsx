/** The proposed prices of a replay: for a message, or for its tokens. */

import { usePage } from "./context.js";
import type { PriceFields } from "./proposal.js";

const TOKENS = ["input", "cachedInput", "output", "minimum"] as const;

export function Prices({ prices, onChange }: { prices: PriceFields[]; onChange: (prices: PriceFields[]) => void }) {
    const { text } = usePage();
    const change = (place: number, now: PriceFields) =>
        onChange(prices.map((before, at) => (at === place ? now : before)));
    return prices.map((price, place) => (
        // A price has no identity besides its place.
        <fieldset key={place} className="choices">
            <legend>{price.model || text.modelPattern}</legend>
            <label>
                {text.modelPattern}{" "}
                <input
                    required
                    maxLength={128}
                    value={price.model}
                    onChange={(event) => change(place, { ...price, model: event.target.value })}
                />
            </label>
            <label>
                {text.perMessage}{" "}
                <input
                    type="number"
                    min={0}
                    required={price.output === ""}
                    disabled={price.output !== ""}
                    value={price.flat}
                    onChange={(event) => change(place, { ...price, flat: event.target.value })}
                />
            </label>
            {TOKENS.map((kind) => (
                <label key={kind}>
                    {text.perMillion[kind]}{" "}
                    <input
                        type="number"
                        min={0}
                        step={kind === "minimum" ? 1 : "any"}
                        required={(kind === "input" || kind === "output") && price.flat === ""}
                        disabled={price.flat !== ""}
                        value={price[kind]}
                        onChange={(event) => change(place, { ...price, [kind]: event.target.value })}
                    />
                </label>
            ))}
            <button
                type="button"
                className="qg-button"
                onClick={() => onChange(prices.filter((_, at) => at !== place))}
            >
                {text.remove}
            </button>
        </fieldset>
    ));
}
