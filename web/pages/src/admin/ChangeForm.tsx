/** A change of a user: first a preview, then the change, with a reason. */

import { type FormEvent, type ReactNode, useEffect, useId, useState } from "react";
import { Refused } from "./api.js";
import { usePage } from "./context.js";
import { Reason, Table, Trouble } from "./parts.js";

/** What every change has beside its own fields. */
export interface How {
    reason: string;
    preview: boolean;
    ifLevelVersion?: number | null;
}

interface ChangeFormProps<F> {
    title: string;
    /** The form's own fields. */
    fields: ReactNode;
    /** Their values: other values need another preview. */
    values: string;
    send: (how: How) => Promise<F>;
    /** Shows what the change would do. */
    forecastOf: (forecast: F) => ReactNode;
    onChanged: () => void;
    error?: Error | undefined;
}

export function ChangeForm<F extends { levelVersion: number }>(props: ChangeFormProps<F>) {
    const { title, fields, values, send, forecastOf, onChanged } = props;
    const { text } = usePage();
    const id = useId();
    const [reason, setReason] = useState("");
    const [forecast, setForecast] = useState<F>();
    const [error, setError] = useState<Error>();
    useEffect(() => setForecast(undefined), [values]);

    const preview = async (event: FormEvent) => {
        event.preventDefault();
        try {
            setForecast(await send({ reason, preview: true }));
            setError(undefined);
        } catch (refused) {
            setError(refused as Error);
        }
    };
    const apply = async () => {
        try {
            await send({ reason, preview: false, ifLevelVersion: forecast?.levelVersion ?? null });
            setError(undefined);
            setReason("");
            onChanged();
        } catch (refused) {
            const isStale = refused instanceof Refused && refused.status === 409;
            setError(isStale ? new Error(text.faster) : (refused as Error));
        }
        setForecast(undefined);
    };
    return (
        <section className="panel" aria-labelledby={id}>
            <h3 id={id}>{title}</h3>
            <form className="choices" onSubmit={(event) => void preview(event)}>
                {fields}
                <Reason value={reason} onChange={setReason} />
                <button type="submit" className="qg-button">
                    {text.preview}
                </button>
            </form>
            <Trouble error={error ?? props.error} />
            {forecast && (
                <div className="forecast">
                    {forecastOf(forecast)}
                    <button type="button" className="qg-button" disabled={!reason.trim()} onClick={() => void apply()}>
                        {text.apply}
                    </button>
                </div>
            )}
        </section>
    );
}

/** Compares a user before and after a change, a row for each of these values. */
export function Comparison<S>({ before, after, rows }: { before: S; after: S; rows: [string, (of: S) => string][] }) {
    const { text } = usePage();
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
