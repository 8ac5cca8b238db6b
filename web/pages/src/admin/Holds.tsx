/** A user's live holds. A hold whose holder is gone can be released, with a reason. */

import { type FormEvent, useState } from "react";
import type { User } from "./api.js";
import { usePage } from "./context.js";
import { Reason, Trouble } from "./parts.js";

interface HoldsProps {
    user: string;
    /** Undefined if they are unknown. */
    holds: User["holds"] | undefined;
    onReleased: () => void;
}

export function Holds({ user, holds, onReleased }: HoldsProps) {
    const { api, text, number, time } = usePage();
    const [chosen, setChosen] = useState<string>();
    const [reason, setReason] = useState("");
    const [error, setError] = useState<Error>();
    const choose = (hold: string) => {
        setChosen(hold);
        setError(undefined);
    };
    const release = async (event: FormEvent) => {
        event.preventDefault();
        try {
            await api.releaseHold(user, chosen ?? "", reason);
            setChosen(undefined);
            setReason("");
            setError(undefined);
        } catch (refused) {
            setError(refused as Error);
        }
        onReleased();
    };
    return (
        <section className="panel" aria-labelledby="holds-title">
            <h3 id="holds-title">{text.holds}</h3>
            {holds === undefined ? <p>{text.holdsUnknown}</p> : holds.length === 0 && <p>{text.noHolds}</p>}
            <ul>
                {holds?.map((hold) => (
                    <li key={hold.id}>
                        {number(hold.ap)} AP, {text.until} {time(hold.expiresAt)} <code>{hold.id}</code>{" "}
                        <button type="button" className="qg-button" onClick={() => choose(hold.id)}>
                            {text.release}
                        </button>
                    </li>
                ))}
            </ul>
            <Trouble error={error} />
            {holds?.some(({ id }) => id === chosen) && (
                <form onSubmit={(event) => void release(event)}>
                    <p>{text.releaseHint}</p>
                    <Reason value={reason} onChange={setReason} />{" "}
                    <button type="submit" className="qg-button">
                        {text.releaseNow}
                    </button>
                </form>
            )}
        </section>
    );
}
