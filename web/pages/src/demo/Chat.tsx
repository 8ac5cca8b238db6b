/** One user's chat. */

import { QuotaExceededError } from "@quota-gate/client";
import { ChatInput, ChatQuotaDisplay, type Denial, QuotaExceededDialog, useChatQuota } from "@quota-gate/react";
import { useRef, useState } from "react";
import { ask, changeLevel, type Session, type Turn } from "./api.js";
import type { Texts } from "./texts.js";

const COSTS = { local: 1, "local-large": 25 };
type Model = keyof typeof COSTS;

/** A turn, the answering model, and a note if the answer ended early. */
interface Shown extends Turn {
    model?: Model;
    note?: string;
}

export function Chat({ session, text }: { session: Session; text: Texts }) {
    const { quota, refresh } = useChatQuota();
    const [model, setModel] = useState<Model>("local");
    const [turns, setTurns] = useState<Shown[]>([]);
    const [denial, setDenial] = useState<Denial | null>(null);
    const [isAnswering, setIsAnswering] = useState(false);
    const stop = useRef<AbortController>(undefined);

    const send = async (content: string) => {
        const controller = new AbortController();
        stop.current = controller;
        const before: Shown[] = [...turns, { role: "user", content }];
        const asked = before.map(({ role, content: said }) => ({ role, content: said }));
        const show = (answer: string, note?: string) =>
            setTurns([...before, { role: "assistant", content: answer, model, ...(note && { note }) }]);
        let answer = "";
        setIsAnswering(true);
        show(answer);
        try {
            await ask(session, model, asked, (piece) => show((answer += piece)), controller.signal);
        } catch (error) {
            if (error instanceof QuotaExceededError) {
                setDenial(error);
                setTurns(turns);
                throw error;
            }
            const failed = answer === "" ? text.failed : text.brokeOff;
            show(answer, controller.signal.aborted ? text.stopped : failed);
            if (!controller.signal.aborted && answer === "") throw error;
        } finally {
            setIsAnswering(false);
        }
    };

    const upgrade = quota?.recommendedUpgrade;
    return (
        <main data-user={session.user}>
            <ChatQuotaDisplay />
            <section>
                <div role="log" aria-label={text.conversation} aria-busy={isAnswering}>
                    <ol className="turns">
                        {turns.map(({ role, content, model: by, note }, at) => (
                            <li key={at} className={role}>
                                <strong>{by ?? text.you}</strong> {content}
                                {note && <em> {note}</em>}
                            </li>
                        ))}
                    </ol>
                </div>
                {isAnswering && (
                    <button type="button" className="qg-button" onClick={() => stop.current?.abort()}>
                        {text.stop}
                    </button>
                )}
            </section>
            <label>
                {text.model}{" "}
                <select value={model} onChange={(event) => setModel(event.target.value as Model)}>
                    {Object.keys(COSTS).map((name) => (
                        <option key={name} value={name}>
                            {text.models[name]}
                        </option>
                    ))}
                </select>
            </label>
            <ChatInput onSend={send} cost={COSTS[model]} draftKey={session.user} onBlocked={setDenial} />
            <section id="plans" aria-labelledby="plans-title">
                <h2 id="plans-title">{text.plans}</h2>
                {quota && <p>{text.current(quota.membershipLevel)}</p>}
                {upgrade && (
                    <button
                        type="button"
                        className="qg-button"
                        onClick={() => void changeLevel(session.user, upgrade.membershipLevel).then(refresh)}
                    >
                        {text.take(upgrade)}
                    </button>
                )}
            </section>
            <QuotaExceededDialog
                denial={denial}
                onClose={() => setDenial(null)}
                onContinue={() => document.querySelector("textarea")?.focus()}
                pricingUrl="#plans"
            />
        </main>
    );
}
