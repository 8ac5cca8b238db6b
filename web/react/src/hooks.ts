"use client";

/** Hooks of the components: state without markup. */

import type { Limit, Remedy, Upgrade } from "@quota-gate/client";
import { useCallback, useEffect, useId, useRef, useState, useSyncExternalStore } from "react";
import { useNumber, useShared } from "./context.js";
import { availableOf, type Blocked, blockedBy, type Level } from "./derive.js";
import { readDraft, writeDraft } from "./draft.js";
import type { QuotaState, QuotaStore } from "./store.js";

/** The known quota, and the actions on it. */
export interface ChatQuota extends QuotaState {
    /** Returns why a message of this cost cannot be sent; undefined if it can, or if the quota is unknown. */
    blockedBy: (cost: number) => Blocked | undefined;
    /** Fetches the quota now: after an answer or a denial. */
    refresh: () => Promise<void>;
    /** Applies a quota from another source. */
    apply: QuotaStore["apply"];
    /** Adds the cost of a message to `pending`. Call the returned function when the message is answered. */
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

/** Returns the quota of the provider's store. Without a store nothing is blocked. */
export function useChatQuota(): ChatQuota {
    const { store } = useShared();
    const { subscribe, getSnapshot, getServerSnapshot, refresh, apply, hold } = store ?? off;
    const state = useSyncExternalStore(subscribe, getSnapshot, getServerSnapshot);
    const blocked = useCallback((cost: number) => blockedBy(state, cost), [state]);
    return { ...state, blockedBy: blocked, refresh, apply, hold };
}

/** Returns the announcement of a crossed threshold: once per crossing, and not for the first quota. */
export function useThresholdAnnouncement(): string {
    const { store, messages } = useShared();
    const number = useNumber();
    const { quota } = useChatQuota();
    const last = useRef<{ store: QuotaStore | null; level: Level; period: string }>(undefined);
    const [text, setText] = useState("");
    const level = quota?.status;
    const period = quota?.period;
    const remaining = quota?.remaining;
    useEffect(() => {
        // Another store is another user.
        if (last.current?.store !== store) {
            last.current = undefined;
            setText("");
        }
        if (level === undefined || period === undefined || remaining === undefined) return;
        const before = last.current;
        last.current = { store, level, period };
        if (before === undefined || (before.level === level && before.period === period)) return;
        setText(level === "ok" ? "" : messages.announcement(level, number(remaining)));
    }, [store, level, period, remaining, messages, number]);
    return text;
}

/** A denial: a `QuotaExceededError`, or its numbers. */
export interface Denial {
    required: number;
    remaining: number;
    shortfall: number;
    quotaResetAt: string;
    recommendedUpgrade: Upgrade | null;
    /** Limits that do not allow the message. */
    limits?: Limit[];
    /** What would let it pass. Only the gate knows it. */
    remedies?: Remedy[];
}

/** Options of `useChatInput`. */
export interface ChatInputOptions {
    /** Sends the message. The cost is pending until the promise settles. If it fails, the draft is restored. */
    onSend: (text: string) => void | Promise<void>;
    /** Cost of the message, in AP; 1 by default. */
    cost?: number;
    /** Called when the user tries to send a message that the quota does not cover. Open a dialog here. */
    onBlocked?: (denial: Denial) => void;
    /**
     * Sends also messages that the known quota does not cover, so that the gate denies them and names remedies; false
     * by default.
     */
    sendsBlocked?: boolean;
    /** Name under which this tab stores the draft across reloads. */
    draftKey?: string;
}

/** A chat input without markup: never loses the draft, and gives the reason when sending is blocked. */
export function useChatInput({ onSend, onBlocked, cost = 1, sendsBlocked = false, draftKey }: ChatInputOptions) {
    const quota = useChatQuota();
    const reasonId = useId();
    const [draft, setDraftState] = useState("");
    const [isSending, setIsSending] = useState(false);
    const [error, setError] = useState<unknown>();
    const latest = useRef("");
    const isComposing = useRef(false);

    useEffect(() => {
        const kept = readDraft(draftKey);
        if (kept === null) return;
        latest.current = kept;
        setDraftState(kept);
    }, [draftKey]);

    const keepDraft = useCallback(
        (text: string) => {
            latest.current = text;
            setDraftState(text);
            writeDraft(draftKey, text);
        },
        [draftKey],
    );
    const setDraft = useCallback(
        (text: string) => {
            // The failure was about the draft before this change.
            setError(undefined);
            keepDraft(text);
        },
        [keepDraft],
    );

    const blocked = quota.blockedBy(cost);
    const isRefused = blocked !== undefined && !sendsBlocked;
    const canSend = !isRefused && !isSending && draft.trim() !== "";

    const send = useCallback(async () => {
        if (isRefused && quota.quota && draft.trim() !== "") {
            const { quotaResetAt, recommendedUpgrade } = quota.quota;
            const remaining = availableOf(quota.quota);
            const shortfall = Math.max(0, cost - remaining);
            onBlocked?.({ required: cost, remaining, shortfall, quotaResetAt, recommendedUpgrade });
        }
        if (!canSend) return;
        const text = draft;
        const answered = quota.hold(cost);
        setIsSending(true);
        setDraft("");
        try {
            await onSend(text);
        } catch (failure) {
            setError(failure);
            // Keep the text typed in the meantime as well.
            keepDraft(latest.current === "" ? text : `${text}\n${latest.current}`);
        } finally {
            answered();
            setIsSending(false);
            // A stream, if there is one, also delivers this change.
            void quota.refresh();
        }
    }, [isRefused, canSend, draft, quota, cost, onSend, onBlocked, setDraft, keepDraft]);

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
            // Input methods use Enter to choose a word. After a composition, Safari marks it only by key code 229.
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

/** Returns the current time, updated every minute, for texts such as "in 8 days". */
export function useNow(): number {
    const [now, setNow] = useState(() => Date.now());
    useEffect(() => {
        const timer = setInterval(() => setNow(Date.now()), 60_000);
        return () => clearInterval(timer);
    }, []);
    return now;
}
