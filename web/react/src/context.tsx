"use client";

/** What components share: the store, the language, and its texts. */

import { createContext, type ReactNode, useContext, useMemo } from "react";
import { en, type Messages } from "./messages.js";
import type { QuotaStore } from "./store.js";

interface Shared {
    /** Null where the quota system is switched off. */
    store: QuotaStore | null;
    locale: string;
    messages: Messages;
}

const SharedContext = createContext<Shared | null>(null);

/** For everything below it. */
export interface QuotaProviderProps {
    /** One for each user; null runs the chat without the quota system. */
    store: QuotaStore | null;
    /** For numbers and dates: a BCP 47 tag; `en` when not given. */
    locale?: string;
    /** Texts that replace the English ones: all of another language, or some. */
    messages?: Partial<Messages>;
    children: ReactNode;
}

export function QuotaProvider({ store, locale = "en", messages, children }: QuotaProviderProps) {
    const shared = useMemo(() => ({ store, locale, messages: { ...en, ...messages } }), [store, locale, messages]);
    return <SharedContext.Provider value={shared}>{children}</SharedContext.Provider>;
}

export function useShared(): Shared {
    const shared = useContext(SharedContext);
    if (!shared) throw new Error("@quota-gate/react: put a <QuotaProvider> around this component");
    return shared;
}

/** Numbers in the language of the provider. */
export function useNumber(): (value: number) => string {
    const { locale } = useShared();
    return useMemo(() => {
        const format = new Intl.NumberFormat(locale);
        return (value) => format.format(value);
    }, [locale]);
}
