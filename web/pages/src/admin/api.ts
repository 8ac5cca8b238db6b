/** The administrator API. Its types come from the OpenAPI document. */

import type { components, operations } from "../../../client/src/schema.js";

type Schemas = components["schemas"];
export type Users = Schemas["UsersBody"];
export type User = Schemas["UserBody"];
export type Messages = Schemas["MessagesBody"];
export type LevelForecast = Schemas["LevelForecastBody"];
export type Changes = Schemas["ChangesBody"];
export type Change = Changes["changes"][number];
export type Usage = Schemas["UsageBody"];
export type Status = Schemas["StatusBody"];
export type Drift = Schemas["DriftBody"];
export type Rollout = Schemas["RolloutBody"];
export type Proposal = Schemas["ReplayPricesBody"];
export type Replayed = Schemas["PriceReplayBody"];
export type UsageParams = NonNullable<operations["getUsage"]["parameters"]["query"]>;

/** An error response, with the gate's own message. */
export class Refused extends Error {
    constructor(
        readonly status: number,
        message: string,
    ) {
        super(message);
    }
}

type Params = Record<string, string | number | undefined>;

/** Calls the routes under `/api/admin` with an administrator token. */
export class AdminApi {
    readonly #token: string;
    readonly #onRejected: ((token: string) => void) | undefined;

    /** `onRejected` is called when the gate rejects the token: it is invalid, or no longer has the scope. */
    constructor(token: string, onRejected?: (token: string) => void) {
        this.#token = token;
        this.#onRejected = onRejected;
    }

    users = (params: Params) => this.#get<Users>("users", params);
    user = (user: string) => this.#get<User>(`users/${encodeURIComponent(user)}`);
    messages = (user: string, params: Params) =>
        this.#get<Messages>(`users/${encodeURIComponent(user)}/messages`, params);
    changes = (params: Params) => this.#get<Changes>("changes", params);
    usage = (params: UsageParams) => this.#get<Usage>("usage", params);
    status = () => this.#get<Status>("status");
    drift = (params: Params) => this.#get<Drift>("drift", params);
    rollout = () => this.#get<Rollout>("rollout");

    changeLevel = (user: string, body: Schemas["ChangeLevelBody"]) =>
        this.#send<LevelForecast>("PUT", `users/${encodeURIComponent(user)}/level`, body);
    releaseHold = (user: string, hold: string, reason: string) =>
        this.#send<unknown>("POST", `users/${encodeURIComponent(user)}/holds/${encodeURIComponent(hold)}/release`, {
            reason,
        });
    changeRollout = (body: Schemas["ChangeRolloutBody"]) => this.#send<Rollout>("PATCH", "rollout", body);

    replayPrices = (proposal: Proposal) => this.#send<Replayed>("POST", "price-replay", proposal);

    async usageFile(params: UsageParams): Promise<Blob> {
        return (await this.#ask("GET", `usage?${query({ ...params, format: "csv" })}`)).blob();
    }

    async #get<T>(path: string, params: Params = {}): Promise<T> {
        return (await this.#ask("GET", `${path}?${query(params)}`)).json() as Promise<T>;
    }

    async #send<T>(method: string, path: string, body: unknown): Promise<T> {
        return (await this.#ask(method, path, JSON.stringify(body))).json() as Promise<T>;
    }

    async #ask(method: string, path: string, body?: string): Promise<Response> {
        const headers: Record<string, string> = { authorization: `Bearer ${this.#token}` };
        if (body !== undefined) headers["content-type"] = "application/json";
        const response = await fetch(`/api/admin/${path}`, { method, headers, ...(body !== undefined && { body }) });
        if (response.ok) return response;
        if (isRejection(response.status)) this.#onRejected?.(this.#token);
        const problem = (await response.json().catch(() => ({}))) as { title?: string; detail?: string };
        throw new Refused(response.status, problem.detail ?? problem.title ?? String(response.status));
    }
}

/** Returns whether an error status is about the token. */
export function isRejection(status: number): boolean {
    return status === 401 || status === 403;
}

function query(params: Params): URLSearchParams {
    const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== "");
    return new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
}
