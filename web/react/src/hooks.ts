"use client";

/** The hooks below the components: state without markup. */

import type { Upgrade } from "@quota-gate/client";
import { useCallback, useEffect, useId, useRef, useState, useSyncExternalStore } from "react";
import { useNumber, useShared } from "./context.js";
import { type Blocked, blockedBy, type Level } from "./derive.js";
import type { QuotaState, QuotaStore } from "./store.js";

/** What is known of the quota, and what can be done about it. */
export interface ChatQuota extends QuotaState {
    /** Why a message of this cost cannot be sent; undefined when it can, also while nothing is known. */
    blockedBy: (cost: number) => Blocked | undefined;
    /** Looks the quota up now: at the end of an answer, after a denial. */
    refresh: () => Promise<void>;
    /** Takes over a quota that came another way. */
    apply: QuotaStore["apply"];
    /** A message of this cost is on its way; call what comes back when it was answered. */
    hold: QuotaStore["hold"];
}

const OFF: QuotaState = { status: "ready", quota: undefined, pending: 0, error: undefined };
const nothing = () => undefined;
const off = {
    subscribe: () => nothing,
    getSnapshot: () => OFF,
    getServerSnapshot: () => OFF,
    refresh: () => Promise.resolve(),
    apply: nothing,
    hold: () => nothing,
};

/** The quota of the provider's store. Without one nothing is ever blocked. */
export function useChatQuota(): ChatQuota {
    const { store } = useShared();
    const { subscribe, getSnapshot, getServerSnapshot, refresh, apply, hold } = store ?? off;
    const state = useSyncExternalStore(subscribe, getSnapshot, getServerSnapshot);
    const blocked = useCallback((cost: number) => blockedBy(state, cost), [state]);
    return { ...state, blockedBy: blocked, refresh, apply, hold };
}

/** Says a threshold once, when it is crossed: not at the first look, and not again before it was left. */
export function useThresholdAnnouncement(): string {
    const { messages } = useShared();
    const number = useNumber();
    const { quota } = useChatQuota();
    const last = useRef<{ level: Level; period: string }>(undefined);
    const [text, setText] = useState("");
    const level = quota?.status;
    const period = quota?.period;
    const remaining = quota?.remaining ?? 0;
    useEffect(() => {
        if (level === undefined || period === undefined) return;
        const before = last.current;
        last.current = { level, period };
        if (before === undefined || (before.level === level && before.period === period)) return;
        setText(level === "ok" ? "" : messages.announcement(level, number(remaining)));
    }, [level, period, remaining, messages, number]);
    return text;
}

/** A denial: a `QuotaExceededError`, or the numbers of one. */
export interface Denial {
    required: number;
    remaining: number;
    shortfall: number;
    quotaResetAt: string;
    recommendedUpgrade: Upgrade | null;
}

/** What a chat input is given. */
export interface ChatInputOptions {
    /** Sends it. While it has not ended the cost shows as being sent; if it fails the draft comes back. */
    onSend: (text: string) => void | Promise<void>;
    /** What the message costs, in AP; 1 by default. */
    cost?: number;
    /** Somebody tries to send what the quota does not cover: the moment for a dialog. */
    onBlocked?: (denial: Denial) => void;
    /** Keeps the draft over a reload, in this tab, under this name. */
    draftKey?: string;
}

/** A chat input without markup: a draft that is never lost, and a reason when it cannot be sent. */
export function useChatInput({ onSend, onBlocked, cost = 1, draftKey }: ChatInputOptions) {
    const quota = useChatQuota();
    const reasonId = useId();
    const [draft, setDraftState] = useState("");
    const [isSending, setIsSending] = useState(false);
    const [error, setError] = useState<unknown>();
    const latest = useRef("");
    const isComposing = useRef(false);
    const storageKey = draftKey === undefined ? undefined : `quota-gate-draft:${draftKey}`;

    useEffect(() => {
        const kept = storageKey === undefined ? null : sessionStorage.getItem(storageKey);
        if (kept === null) return;
        latest.current = kept;
        setDraftState(kept);
    }, [storageKey]);

    const setDraft = useCallback(
        (text: string) => {
            latest.current = text;
            setDraftState(text);
            if (storageKey === undefined) return;
            if (text === "") sessionStorage.removeItem(storageKey);
            else sessionStorage.setItem(storageKey, text);
        },
        [storageKey],
    );

    const blocked = quota.blockedBy(cost);
    const canSend = blocked === undefined && !isSending && draft.trim() !== "";

    const send = useCallback(async () => {
        if (blocked && quota.quota && draft.trim() !== "") {
            const { remaining, quotaResetAt, recommendedUpgrade } = quota.quota;
            onBlocked?.({ required: cost, remaining, shortfall: cost - remaining, quotaResetAt, recommendedUpgrade });
        }
        if (!canSend) return;
        const text = draft;
        const answered = quota.hold(cost);
        setIsSending(true);
        setError(undefined);
        setDraft("");
        try {
            await onSend(text);
        } catch (failure) {
            setError(failure);
            // Whatever was written in the meantime stays as well.
            setDraft(latest.current === "" ? text : `${text}\n${latest.current}`);
        } finally {
            answered();
            setIsSending(false);
            // The stream brings it too, where there is one.
            void quota.refresh();
        }
    }, [blocked, canSend, draft, quota, cost, onSend, onBlocked, setDraft]);

    const inputProps = {
        value: draft,
        onChange: (event: { target: { value: string } }) => setDraft(event.target.value),
        onCompositionStart: () => {
            isComposing.current = true;
        },
        onCompositionEnd: () => {
            isComposing.current = false;
        },
        onKeyDown: (event: KeyLike) => {
            // An input method takes Enter to choose a word. Safari says so by the key code only, after the composition's end.
            const isItsOwn = isComposing.current || event.nativeEvent.isComposing || event.keyCode === 229;
            if (event.key === "Enter" && !event.shiftKey && !isItsOwn) {
                event.preventDefault();
                void send();
            }
        },
        "aria-describedby": reasonId,
    };
    return { draft, setDraft, blocked, canSend, isSending, error, send, reasonId, inputProps };
}

interface KeyLike {
    key: string;
    keyCode: number;
    shiftKey: boolean;
    nativeEvent: { isComposing: boolean };
    preventDefault: () => void;
}

/** The present, again every minute: for texts such as "in 8 days". */
export function useNow(): number {
    const [now, setNow] = useState(() => Date.now());
    useEffect(() => {
        const timer = setInterval(() => setNow(Date.now()), 60_000);
        return () => clearInterval(timer);
    }, []);
    return now;
}
