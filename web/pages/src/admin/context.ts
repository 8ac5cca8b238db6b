/** Context of all views: the API, the language, and the number and time formats. */

import { createContext, useContext, useEffect, useRef, useState } from "react";
import type { AdminApi } from "./api.js";
import type { Locale, Texts } from "./texts.js";

export interface Page {
    api: AdminApi;
    locale: Locale;
    text: Texts;
    /** Formats a number; null and undefined are unknown, not 0. */
    number: (value: number | null | undefined) => string;
    /** Formats a number in little space, such as `1.2M`. */
    short: (value: number) => string;
    /** Formats an instant in the browser's time zone. */
    time: (at: string) => string;
}

export const PageContext = createContext<Page | undefined>(undefined);

export function usePage(): Page {
    const page = useContext(PageContext);
    if (!page) throw new Error("usePage must be called inside PageContext");
    return page;
}

export function pageIn(api: AdminApi, locale: Locale, text: Texts): Page {
    const plain = new Intl.NumberFormat(locale);
    const compact = new Intl.NumberFormat(locale, { notation: "compact", maximumSignificantDigits: 3 });
    const time = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });
    return {
        api,
        locale,
        text,
        number: (value) => (value === null || value === undefined ? text.unknown : plain.format(value)),
        short: compact.format,
        time: (at) => time.format(new Date(at)),
    };
}

/** The newest answer to a query, and the error of a later attempt. */
export interface Asked<T> {
    data: T | undefined;
    error: Error | undefined;
    again: () => void;
}

/**
 * Runs the query when the view opens, when `key` changes, and every `everyMs` while the page is visible. Drops answers
 * to older queries. A failed query keeps the previous answer.
 */
export function useAsked<T>(key: string, ask: () => Promise<T>, everyMs?: number): Asked<T> {
    const [answer, setAnswer] = useState<{ key: string; data?: T; error?: Error }>({ key });
    const [round, setRound] = useState(0);
    const latest = useRef(ask);
    latest.current = ask;
    useEffect(() => {
        let isCurrent = true;
        let timer: ReturnType<typeof setTimeout> | undefined;
        const look = async () => {
            try {
                if (document.visibilityState === "visible") {
                    const data = await latest.current();
                    if (isCurrent) setAnswer({ key, data });
                }
            } catch (error) {
                if (isCurrent) {
                    setAnswer((before) => ({ ...(before.key === key && before), key, error: error as Error }));
                }
            }
            if (isCurrent && everyMs !== undefined) timer = setTimeout(() => void look(), everyMs);
        };
        void look();
        return () => {
            isCurrent = false;
            clearTimeout(timer);
        };
    }, [key, everyMs, round]);
    const mine = answer.key === key ? answer : undefined;
    return { data: mine?.data, error: mine?.error, again: () => setRound((now) => now + 1) };
}
