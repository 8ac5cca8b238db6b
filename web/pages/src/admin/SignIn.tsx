/** Asks for an administrator token and verifies it. `isEnded`: the previous token was rejected. */

import { type FormEvent, useState } from "react";
import { AdminApi, isRejection, Refused } from "./api.js";
import { usePage } from "./context.js";

export function SignIn({ isEnded, onSignedIn }: { isEnded: boolean; onSignedIn: (token: string) => void }) {
    const [given, setGiven] = useState("");
    const { text } = usePage();
    const [wrong, setWrong] = useState<string>();
    const note = wrong ?? (isEnded ? text.tokenEnded : undefined);
    const submit = async (event: FormEvent) => {
        event.preventDefault();
        try {
            await new AdminApi(given).status();
            onSignedIn(given);
        } catch (error) {
            const isRejected = error instanceof Refused && isRejection(error.status);
            setWrong(isRejected ? text.wrongToken : (error as Error).message);
        }
    };
    return (
        <form className="panel" onSubmit={(event) => void submit(event)}>
            <label>
                {text.token}{" "}
                <input
                    type="password"
                    autoComplete="off"
                    required
                    value={given}
                    onChange={(event) => setGiven(event.target.value)}
                />
            </label>
            <p className="muted">{text.tokenHint}</p>
            {note !== undefined && <p role="alert">{note}</p>}
            <button type="submit" className="qg-button">
                {text.signIn}
            </button>
        </form>
    );
}
