"use client";

/** Context of the components: store, locale and texts. */

import { createContext, type ReactNode, useContext, useMemo } from "react";
import { en, type Messages } from "./messages.js";
import type { QuotaStore } from "./store.js";

interface Shared {
    /** Null if the quota system is off. */
    store: QuotaStore | null;
    locale: string;
    messages: Messages;
}

const SharedContext = createContext<Shared | null>(null);

/** Props of `QuotaProvider`. */
export interface QuotaProviderProps {
    /** One store per user; null runs the chat without the quota system. */
    store: QuotaStore | null;
    /** BCP 47 tag for numbers and dates; `en` by default. */
    locale?: string;
    /** Texts that replace all or some of the English ones. */
    messages?: Partial<Messages>;
    children: ReactNode;
}

export function QuotaProvider({ store, locale = "en", messages, children }: QuotaProviderProps) {
    const shared = useMemo(() => ({ store, locale, messages: { ...en, ...messages } }), [store, locale, messages]);
    return <SharedContext.Provider value={shared}>{children}</SharedContext.Provider>;
}

export function useShared(): Shared {
    const shared = useContext(SharedContext);
    if (!shared) throw new Error("@quota-gate/react: wrap this component in a <QuotaProvider>");
    return shared;
}

/** Returns a number formatter for the provider's locale. */
export function useNumber(): (value: number) => string {
    const { locale } = useShared();
    return useMemo(() => {
        const format = new Intl.NumberFormat(locale);
        return (value) => format.format(value);
    }, [locale]);
}
