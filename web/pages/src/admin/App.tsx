/** The page frame: sign-in, language, theme and section. The section is in the URL, so it can be linked to. */

import { useEffect, useMemo, useState } from "react";
import { AdminApi } from "./api.js";
import { Boundary } from "./Boundary.js";
import { Changes } from "./Changes.js";
import { PageContext, pageIn } from "./context.js";
import { PriceReplay } from "./PriceReplay.js";
import { Rollout } from "./Rollout.js";
import { SignIn } from "./SignIn.js";
import { Status } from "./Status.js";
import { type Locale, texts } from "./texts.js";
import { Usage } from "./Usage.js";
import { User } from "./User.js";
import { Users } from "./Users.js";

const PARTS = ["users", "usage", "replay", "status", "rollout", "changes"] as const;
/** Stored until the tab closes. */
const TOKEN = "quota-gate-admin-token";

type Theme = "system" | "light" | "dark";

export function App() {
    const [{ token, isEnded }, setSession] = useState(() => ({ token: storedToken(), isEnded: false }));
    const [locale, setLocale] = useState<Locale>(navigator.language.startsWith("zh") ? "zh-CN" : "en");
    const [theme, setTheme] = useState<Theme>("system");
    const [part = "users", name] = useHash();
    const text = texts[locale];
    const page = useMemo(() => {
        // The section stays in the URL, so the next sign-in shows it again.
        const end = (rejected: string) => {
            // A late answer to an earlier token does not end the session of a newer one.
            if (storedToken() === rejected) storeToken("");
            setSession((now) => (now.token === rejected ? { token: "", isEnded: true } : now));
        };
        return pageIn(new AdminApi(token, end), locale, text);
    }, [token, locale, text]);

    useEffect(() => {
        document.documentElement.lang = locale;
        document.title = text.title;
    }, [locale, text]);
    useEffect(() => {
        if (theme === "system") delete document.documentElement.dataset.theme;
        else document.documentElement.dataset.theme = theme;
    }, [theme]);

    const signedIn = (given: string) => {
        storeToken(given);
        setSession({ token: given, isEnded: false });
    };
    const signOut = () => {
        storeToken("");
        setSession({ token: "", isEnded: false });
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
                    <SignIn isEnded={isEnded} onSignedIn={signedIn} />
                ) : (
                    <Boundary key={`${part}/${name}`} text={text}>
                        <Section part={part} name={name} />
                    </Boundary>
                )}
            </main>
        </PageContext>
    );
}

function Section({ part, name }: { part: string; name: string | undefined }) {
    switch (part) {
        case "usage":
            return <Usage />;
        case "replay":
            return <PriceReplay />;
        case "status":
            return <Status />;
        case "rollout":
            return <Rollout />;
        case "changes":
            return <Changes />;
        default:
            return part === "users" && name !== undefined ? <User name={name} /> : <Users />;
    }
}

/** `#/users/ann` becomes `["users", "ann"]`. */
function useHash(): string[] {
    const read = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
    const [parts, setParts] = useState(read);
    useEffect(() => {
        const changed = () => setParts(read());
        addEventListener("hashchange", changed);
        return () => removeEventListener("hashchange", changed);
    }, []);
    return parts;
}

/** Decodes a part of the URL. A part that was typed and is not encoded, such as `50%`, means itself. */
function decoded(part: string): string {
    try {
        return decodeURIComponent(part);
    } catch {
        return part;
    }
}

/** Returns the token of this tab; empty if there is none, or if the browser blocks storage. */
function storedToken(): string {
    try {
        return sessionStorage.getItem(TOKEN) ?? "";
    } catch {
        return "";
    }
}

function storeToken(token: string): void {
    try {
        if (token === "") sessionStorage.removeItem(TOKEN);
        else sessionStorage.setItem(TOKEN, token);
    } catch {
        // The token is kept until the page is closed or reloaded.
    }
}
