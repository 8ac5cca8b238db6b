/** Asks for an administrator token and verifies it. */

import { type FormEvent, useState } from "react";
import { AdminApi, Refused } from "./api.js";
import { usePage } from "./context.js";

export function SignIn({ onSignedIn }: { onSignedIn: (token: string) => void }) {
    const [given, setGiven] = useState("");
    const [wrong, setWrong] = useState<string>();
    const { text } = usePage();
    const submit = async (event: FormEvent) => {
        event.preventDefault();
        try {
            await new AdminApi(given).status();
            onSignedIn(given);
        } catch (error) {
            const isRefused = error instanceof Refused && [401, 403].includes(error.status);
            setWrong(isRefused ? text.wrongToken : (error as Error).message);
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
            {wrong !== undefined && <p role="alert">{wrong}</p>}
            <button type="submit" className="qg-button">
                {text.signIn}
            </button>
        </form>
    );
}
