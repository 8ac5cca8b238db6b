/** Converts the fields of the form to a proposal. */

import type { Proposal } from "./api.js";

export interface LevelFields {
    quota: string;
    /** `80 AP every 5h, 20 requests every 1m` */
    windows: string;
}

export interface PriceFields {
    model: string;
    flat: string;
    input: string;
    cachedInput: string;
    output: string;
    minimum: string;
}

export const EMPTY_PRICE: PriceFields = { model: "", flat: "", input: "", cachedInput: "", output: "", minimum: "" };

/** A text that describes no window. */
export class WrongWindow extends Error {
    constructor(readonly given: string) {
        super(given);
    }
}

type Window = NonNullable<Exclude<NonNullable<Proposal["levels"]>[string], number>["windows"]>[number];

/** Returns levels, and prices if there are any. */
export function proposalOf(
    levels: readonly (readonly [string, LevelFields])[],
    prices: readonly PriceFields[],
): Pick<Proposal, "levels" | "models"> {
    const terms = levels.map(([name, { quota, windows }]) => [
        name,
        { ap: Number(quota), windows: windowsOf(windows) },
    ]);
    const models = prices.map((price) => [price.model.trim(), priceOf(price)]);
    return { levels: Object.fromEntries(terms), ...(models.length > 0 && { models: Object.fromEntries(models) }) };
}

function windowsOf(text: string): Window[] {
    const parts = text.split(/[,;，；]/).map((part) => part.trim());
    return parts.filter((part) => part !== "").map(windowOf);
}

function windowOf(part: string): Window {
    const found = /^(\d+)\s*(ap|requests?)\s+every\s+(\d+\s*[mhd])$/i.exec(part);
    if (!found) throw new WrongWindow(part);
    const [, limit, unit = "", every = ""] = found;
    const length = every.replaceAll(/\s/g, "").toLowerCase();
    return unit.toLowerCase() === "ap"
        ? { every: length, ap: Number(limit) }
        : { every: length, requests: Number(limit) };
}

function priceOf({ flat, input, cachedInput, output, minimum }: PriceFields) {
    if (flat !== "") return Number(flat);
    return {
        input: Number(input),
        output: Number(output),
        ...(cachedInput !== "" && { cached_input: Number(cachedInput) }),
        ...(minimum !== "" && { minimum: Number(minimum) }),
    };
}
