/** The page frame: sign-in, language, theme and section. The section is in the URL, so it can be linked to. */

import { useEffect, useMemo, useState } from "react";
import { AdminApi } from "./api.js";
import { Changes } from "./Changes.js";
import { PageContext, pageIn } from "./context.js";
import { Rollout } from "./Rollout.js";
import { SignIn } from "./SignIn.js";
import { Status } from "./Status.js";
import { type Locale, texts } from "./texts.js";
import { Usage } from "./Usage.js";
import { User } from "./User.js";
import { Users } from "./Users.js";

const PARTS = ["users", "usage", "status", "rollout", "changes"] as const;
/** Stored until the tab closes. */
const TOKEN = "quota-gate-admin-token";

type Theme = "system" | "light" | "dark";

export function App() {
    const [token, setToken] = useState(() => sessionStorage.getItem(TOKEN) ?? "");
    const [locale, setLocale] = useState<Locale>(navigator.language.startsWith("zh") ? "zh-CN" : "en");
    const [theme, setTheme] = useState<Theme>("system");
    const [part = "users", name] = useHash();
    const text = texts[locale];
    const page = useMemo(() => pageIn(new AdminApi(token), locale, text), [token, locale, text]);

    useEffect(() => {
        document.documentElement.lang = locale;
        document.title = text.title;
    }, [locale, text]);
    useEffect(() => {
        if (theme === "system") delete document.documentElement.dataset.theme;
        else document.documentElement.dataset.theme = theme;
    }, [theme]);

    const signedIn = (given: string) => {
        sessionStorage.setItem(TOKEN, given);
        setToken(given);
    };
    const signOut = () => {
        sessionStorage.removeItem(TOKEN);
        setToken("");
    };
    return (
        <PageContext value={page}>
            <header>
                <h1>{text.title}</h1>
                <div className="choices">
                    <label>
                        {text.language}{" "}
                        <select value={locale} onChange={(event) => setLocale(event.target.value as Locale)}>
                            <option value="en">English</option>
                            <option value="zh-CN">简体中文</option>
                        </select>
                    </label>
                    <label>
                        {text.theme}{" "}
                        <select value={theme} onChange={(event) => setTheme(event.target.value as Theme)}>
                            {(["system", "light", "dark"] as const).map((one) => (
                                <option key={one} value={one}>
                                    {text.themes[one]}
                                </option>
                            ))}
                        </select>
                    </label>
                    {token !== "" && (
                        <button type="button" className="qg-button" onClick={signOut}>
                            {text.signOut}
                        </button>
                    )}
                </div>
                {token !== "" && (
                    <nav aria-label={text.parts}>
                        {PARTS.map((one) => (
                            <a key={one} href={`#/${one}`} {...(one === part && { "aria-current": "page" as const })}>
                                {text.part[one]}
                            </a>
                        ))}
                    </nav>
                )}
            </header>
            <main>
                {token === "" ? (
                    <SignIn onSignedIn={signedIn} />
                ) : part === "users" && name !== undefined ? (
                    <User key={name} name={name} />
                ) : part === "usage" ? (
                    <Usage />
                ) : part === "status" ? (
                    <Status />
                ) : part === "rollout" ? (
                    <Rollout />
                ) : part === "changes" ? (
                    <Changes />
                ) : (
                    <Users />
                )}
            </main>
        </PageContext>
    );
}

/** `#/users/ann` becomes `["users", "ann"]`. */
function useHash(): string[] {
    const read = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
    const [parts, setParts] = useState(read);
    useEffect(() => {
        const changed = () => setParts(read());
        addEventListener("hashchange", changed);
        return () => removeEventListener("hashchange", changed);
    }, []);
    return parts;
}
