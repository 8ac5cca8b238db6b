"use client";

/** A chat input that keeps the draft, and shows the cost of a message or why it cannot be sent. */

import { useNumber, useShared } from "./context.js";
import { availableOf } from "./derive.js";
import { type ChatInputOptions, useChatInput, useChatQuota } from "./hooks.js";

export interface ChatInputProps extends ChatInputOptions {
    className?: string;
}

export function ChatInput({ className, cost = 1, ...options }: ChatInputProps) {
    const { store, messages } = useShared();
    const number = useNumber();
    const { quota, refresh } = useChatQuota();
    const { blocked, canSend, isSending, error, send, reasonId, inputProps } = useChatInput({ ...options, cost });
    const reason =
        blocked && quota
            ? messages.blocked(blocked, number(cost), number(availableOf(quota)))
            : error !== undefined
              ? isDenial(error)
                  ? messages.notSent
                  : messages.failed
              : store
                ? messages.cost(number(cost))
                : "";
    return (
        <form
            className={`qg-input${className ? ` ${className}` : ""}`}
            data-blocked={blocked}
            onSubmit={(event) => {
                event.preventDefault();
                void send();
            }}
        >
            <textarea {...inputProps} rows={3} aria-label={messages.message} placeholder={messages.placeholder} />
            <div className="qg-actions">
                <p id={reasonId} className="qg-note" role="status">
                    {reason}
                </p>
                {blocked && (
                    <button type="button" className="qg-link" onClick={() => void refresh()}>
                        {messages.refresh}
                    </button>
                )}
                {/* Not `disabled`: it stays focusable, so a screen reader can read the reason. */}
                <button
                    type="submit"
                    className="qg-button qg-primary"
                    aria-disabled={!canSend}
                    aria-busy={isSending}
                    aria-describedby={reasonId}
                >
                    {messages.send}
                </button>
            </div>
        </form>
    );
}

/** A denial charges nothing. Any other failure may follow a charge, such as a broken connection in an answer. */
function isDenial(error: unknown): boolean {
    return (error as { code?: unknown } | null)?.code === "QUOTA_EXCEEDED";
}
