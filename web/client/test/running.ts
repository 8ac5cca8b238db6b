/** Access to the running `quota-gate dev` that the environment names, and a proxy that loses answers. */

import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { QuotaGate } from "../src/index.js";

function setting(name: string): string {
    const value = process.env[name];
    if (!value) throw new Error(`${name} is not set: run these tests with \`cargo test --test it web\``);
    return value;
}

export const url = setting("QUOTA_GATE_URL");
export const serviceToken = setting("QUOTA_GATE_SERVICE_TOKEN");
export const adminToken = setting("QUOTA_GATE_ADMIN_TOKEN");

export const service = new QuotaGate({ url, token: serviceToken });
export const admin = new QuotaGate({ url, token: adminToken });

let users = 0;
/** Returns an unused user id. */
export const newUser = () => `web-${process.pid}-${++users}`;

export const message = (userUuid: string, ap: number) => ({ userUuid, sessionId: "chat-1", ap });

/** Returns the used and the held AP. */
export async function balance(user: string): Promise<[number, number]> {
    const quota = await service.quota(user);
    return [quota.monthlyUsed, quota.held];
}

/** Starts a proxy that forwards each request to the gate, but drops the first `losses` answers. */
export async function losingProxy(losses: number): Promise<{ url: string; seen: string[]; close: () => void }> {
    const seen: string[] = [];
    const server: Server = createServer((incoming, outgoing) => {
        seen.push(String(incoming.headers["idempotency-key"]));
        const forwarded = request(
            url + incoming.url,
            { method: incoming.method, headers: { ...incoming.headers, host: new URL(url).host } },
            (answer) => {
                if (losses-- > 0) {
                    answer.resume().on("end", () => outgoing.destroy());
                } else {
                    outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
                    answer.pipe(outgoing);
                }
            },
        );
        incoming.pipe(forwarded);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    return { url: `http://127.0.0.1:${port}`, seen, close: () => server.close() };
}

/** Waits until `isSo` returns true. */
export async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
    const until = Date.now() + 20_000;
    while (!(await isSo())) {
        if (Date.now() > until) throw new Error(`timed out: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}
