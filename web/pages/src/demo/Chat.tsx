/** One user's chat. */

import { QuotaExceededError, type Remedy } from "@quota-gate/client";
import { ChatInput, ChatQuotaDisplay, type Denial, QuotaExceededDialog, useChatQuota } from "@quota-gate/react";
import { useEffect, useRef, useState } from "react";
import { ask, buyPack, changeLevel, type Session, type Turn } from "./api.js";
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
    const [trouble, setTrouble] = useState<string>();
    /** Counts remedies that were applied: each sends the kept message. */
    const [applied, setApplied] = useState(0);
    const stop = useRef<AbortController>(undefined);

    useEffect(() => {
        // In an effect, because the message must be sent with the model that was just selected.
        if (applied > 0) document.querySelector<HTMLFormElement>("form.qg-input")?.requestSubmit();
    }, [applied]);

    const apply = async (remedy: Remedy) => {
        try {
            if (remedy.kind === "pack") await buyPack(session.user, remedy.pack);
            if (remedy.kind === "level") await changeLevel(session.user, remedy.membershipLevel);
            if (remedy.kind === "model" && remedy.model in COSTS) setModel(remedy.model as Model);
            await refresh();
            setDenial(null);
            setTrouble(undefined);
            setApplied((count) => count + 1);
        } catch (error) {
            setDenial(null);
            setTrouble((error as Error).message);
        }
    };

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
            <ChatInput onSend={send} cost={COSTS[model]} draftKey={session.user} sendsBlocked />
            {trouble && <p role="alert">{trouble}</p>}
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
                onContinue={() => setApplied((count) => count + 1)}
                onRemedy={(remedy) => void apply(remedy)}
                pricingUrl="#plans"
            />
        </main>
    );
}
