/** A user's grants: AP beside the quota. Gives one, or voids what is left of one, each with a reason. */

import { type FormEvent, useState } from "react";
import type { Grant } from "./api.js";
import { useAsked, usePage } from "./context.js";
import { Reason, Table, Trouble } from "./parts.js";

const LOOK_EVERY_MS = 2000;

export function Grants({ user, onChanged }: { user: string; onChanged: () => void }) {
    const { api, text, number, time } = usePage();
    const { data, error, again } = useAsked(`grants ${user}`, () => api.grants(user), LOOK_EVERY_MS);
    const [open, setOpen] = useState<Grant | "give">();
    const close = () => setOpen(undefined);
    const done = () => {
        close();
        again();
        onChanged();
    };
    return (
        <section className="panel" aria-labelledby="grants-title">
            <h3 id="grants-title">{text.grants}</h3>
            <Trouble error={error} />
            {data?.grants.length === 0 && <p>{text.noGrants}</p>}
            {data && data.grants.length > 0 && (
                <Table
                    label={text.grants}
                    head={[
                        text.at,
                        text.source,
                        text.granted,
                        text.charged,
                        text.left,
                        text.expires,
                        text.grantState,
                        text.action,
                    ]}
                >
                    {data.grants.map((grant) => (
                        <tr key={grant.id}>
                            <th scope="row">{time(grant.createdAt)}</th>
                            <td>{grant.source}</td>
                            <td>{number(grant.granted)}</td>
                            <td>{number(grant.charged)}</td>
                            <td>{number(grant.left)}</td>
                            <td>{grant.expiresAt === null ? text.never : time(grant.expiresAt)}</td>
                            <td>{text.grantStates[grant.state]}</td>
                            <td>
                                {grant.state === "live" && (
                                    <button type="button" className="qg-button" onClick={() => setOpen(grant)}>
                                        {text.voidGrant}
                                    </button>
                                )}
                            </td>
                        </tr>
                    ))}
                </Table>
            )}
            {open === undefined && (
                <button type="button" className="qg-button" onClick={() => setOpen("give")}>
                    {text.giveGrant}
                </button>
            )}
            {open === "give" && <Give user={user} onDone={done} onCancel={close} />}
            {typeof open === "object" && <Void key={open.id} grant={open} onDone={done} onCancel={close} />}
        </section>
    );
}

function Void({ grant, onDone, onCancel }: { grant: Grant; onDone: () => void; onCancel: () => void }) {
    const { api, text, number } = usePage();
    const [reason, setReason] = useState("");
    const [error, setError] = useState<Error>();
    const send = async (event: FormEvent) => {
        event.preventDefault();
        try {
            await api.voidGrant(grant.id, reason);
            onDone();
        } catch (refused) {
            setError(refused as Error);
        }
    };
    return (
        <form onSubmit={(event) => void send(event)}>
            <p>{text.voidHint(number(grant.left))}</p>
            <Trouble error={error} />
            <Reason value={reason} onChange={setReason} />{" "}
            <button type="submit" className="qg-button">
                {text.voidNow}
            </button>{" "}
            <button type="button" className="qg-button" onClick={onCancel}>
                {text.cancel}
            </button>
        </form>
    );
}

function Give({ user, onDone, onCancel }: { user: string; onDone: () => void; onCancel: () => void }) {
    const { api, text } = usePage();
    const [ap, setAp] = useState("");
    const [days, setDays] = useState("");
    const [reason, setReason] = useState("");
    const [error, setError] = useState<Error>();
    // Kept while the form is sent again unchanged, so that an attempt whose answer was lost gives once.
    const [attempt, setAttempt] = useState(newAttempt);
    const change = (set: (value: string) => void) => (value: string) => {
        setAttempt(newAttempt());
        set(value);
    };
    const send = async (event: FormEvent) => {
        event.preventDefault();
        const expiresAt =
            days === "" ? {} : { expiresAt: new Date(attempt.at + Number(days) * 86_400_000).toISOString() };
        const grant = {
            userUuid: user,
            ap: Number(ap),
            source: "manual",
            externalId: attempt.id,
            reason,
            ...expiresAt,
        };
        try {
            await api.giveGrant(grant);
            onDone();
        } catch (refused) {
            setError(refused as Error);
        }
    };
    return (
        <form onSubmit={(event) => void send(event)}>
            <Trouble error={error} />
            <label>
                AP <Count required max={100_000_000} value={ap} onChange={change(setAp)} />
            </label>{" "}
            <label>
                {text.expiresInDays} <Count max={3650} value={days} onChange={change(setDays)} />
            </label>{" "}
            <Reason value={reason} onChange={change(setReason)} />{" "}
            <button type="submit" className="qg-button">
                {text.giveNow}
            </button>{" "}
            <button type="button" className="qg-button" onClick={onCancel}>
                {text.cancel}
            </button>
        </form>
    );
}

interface CountProps {
    required?: boolean;
    max: number;
    value: string;
    onChange: (value: string) => void;
}

function Count({ required = false, max, value, onChange }: CountProps) {
    return (
        <input
            type="number"
            required={required}
            min={1}
            max={max}
            value={value}
            onChange={(event) => onChange(event.target.value)}
        />
    );
}

function newAttempt() {
    return { id: `admin-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`, at: Date.now() };
}
