/** Selects the user and the language, and shows the user's chat. */

import { QuotaGate } from "@quota-gate/client";
import { QuotaProvider, QuotaStore } from "@quota-gate/react";
import { zhCN } from "@quota-gate/react/locales/zh-CN";
import { useEffect, useMemo, useState } from "react";
import { type Session, signIn, users } from "./api.js";
import { Chat } from "./Chat.js";
import { texts } from "./texts.js";

export type Locale = keyof typeof texts;

export function App() {
    const [known, setKnown] = useState<string[]>([]);
    const [user, setUser] = useState<string>();
    const [session, setSession] = useState<Session>();
    const [locale, setLocale] = useState<Locale>(navigator.language.startsWith("zh") ? "zh-CN" : "en");
    const text = texts[locale];

    useEffect(() => {
        void users().then((names) => {
            setKnown(names);
            // Keep a user selected while the list was loading.
            setUser((chosen) => chosen ?? names[0]);
        });
    }, []);
    useEffect(() => {
        let isCurrent = true;
        // If sign-ins overlap, the latest selection wins, whichever response is first.
        if (user !== undefined) void signIn(user).then((signedIn) => isCurrent && setSession(signedIn));
        return () => {
            isCurrent = false;
        };
    }, [user]);
    useEffect(() => {
        document.documentElement.lang = locale;
        document.title = text.title;
    }, [locale, text]);

    const store = useMemo(
        () => session && new QuotaStore({ source: new QuotaGate({ url: "", token: session.token }) }),
        [session],
    );
    return (
        <>
            <header>
                <h1>{text.title}</h1>
                <p>{text.lead}</p>
                <div className="choices">
                    <label>
                        {text.user}{" "}
                        <select value={user ?? ""} onChange={(event) => setUser(event.target.value)}>
                            {known.map((name) => (
                                <option key={name}>{name}</option>
                            ))}
                        </select>
                    </label>
                    <label>
                        {text.language}{" "}
                        <select value={locale} onChange={(event) => setLocale(event.target.value as Locale)}>
                            <option value="en">English</option>
                            <option value="zh-CN">简体中文</option>
                        </select>
                    </label>
                </div>
            </header>
            {session && store && (
                <QuotaProvider
                    key={session.user}
                    store={store}
                    locale={locale}
                    messages={locale === "zh-CN" ? zhCN : {}}
                >
                    <Chat session={session} text={text} />
                </QuotaProvider>
            )}
        </>
    );
}
