/** The demo's requests to its server. */

import { dataOf, QuotaExceededError } from "@quota-gate/client";

/** A signed-in user, whose JWT is renewed when it has expired. */
export class Session {
    readonly user: string;
    #jwt: string;

    constructor({ user, jwt }: { user: string; jwt: string }) {
        this.user = user;
        this.#jwt = jwt;
    }

    /** Returns the JWT, or a new one if this one was rejected. */
    token = async (rejected?: string): Promise<string> => {
        if (rejected !== undefined && rejected === this.#jwt) this.#jwt = (await open(this.user)).jwt;
        return this.#jwt;
    };
}

async function post<T>(path: string, body: unknown): Promise<T> {
    const headers = { "content-type": "application/json" };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(await response.text());
    return (await response.json()) as T;
}

export const users = async () => (await (await fetch("/api/demo/users")).json()) as string[];
const open = (user: string) => post<{ user: string; jwt: string }>("/api/demo/session", { user });
export const signIn = async (user: string) => new Session(await open(user));
export const changeLevel = (user: string, membershipLevel: string) =>
    post<true>("/api/demo/level", { user, membershipLevel });
/** Buys a pack. The id of the checkout makes it one pack, however often it is reported. */
export const buyPack = (user: string, pack: string) =>
    post<true>("/api/demo/pack", { user, pack, checkout: `demo-${crypto.randomUUID()}` });

/** One message of a conversation. */
export interface Turn {
    role: "user" | "assistant";
    content: string;
}

/**
 * Sends the conversation to the model, like any OpenAI API client, and passes each piece of the answer to `said`.
 * @throws QuotaExceededError if the quota does not cover the message
 * @throws Error if it fails, before or after it began
 */
export async function ask(
    session: Session,
    model: string,
    messages: Turn[],
    said: (piece: string) => void,
    signal: AbortSignal,
): Promise<void> {
    const send = (jwt: string) =>
        fetch("/v1/chat/completions", {
            method: "POST",
            headers: { "content-type": "application/json", authorization: `Bearer ${jwt}`, "x-session-id": "demo" },
            body: JSON.stringify({ model, stream: true, messages }),
            signal,
        });
    const jwt = await session.token();
    let response = await send(jwt);
    if (response.status === 401) response = await send(await session.token(jwt));
    if (!response.ok || !response.body) {
        const { error } = (await response.json()) as { error: { code: string; message: string } };
        if (error.code === "QUOTA_EXCEEDED") {
            const problem = { ...error, type: "", title: error.message, status: 429, code: "QUOTA_EXCEEDED" as const };
            throw new QuotaExceededError(problem, response.headers.get("x-request-id") ?? undefined);
        }
        throw new Error(error.message);
    }
    for await (const data of dataOf(response.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data) as { choices: { delta: { content?: string } }[] };
        said(chunk.choices[0]?.delta.content ?? "");
    }
    throw new Error("the answer broke off");
}
