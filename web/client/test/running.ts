/** A running `quota-gate dev`, as whoever runs these tests has started it; and a network that loses answers. */

import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { QuotaGate } from "../src/index.js";

function setting(name: string): string {
    const value = process.env[name];
    if (!value) throw new Error(`${name} is not set: run these tests by \`cargo test --test it web\``);
    return value;
}

export const url = setting("QUOTA_GATE_URL");
export const serviceToken = setting("QUOTA_GATE_SERVICE_TOKEN");
export const adminToken = setting("QUOTA_GATE_ADMIN_TOKEN");

export const service = new QuotaGate({ url, token: serviceToken });
export const admin = new QuotaGate({ url, token: adminToken });

let users = 0;
/** Nobody has this user yet. */
export const newUser = () => `web-${process.pid}-${++users}`;

export const message = (userUuid: string, ap: number) => ({ userUuid, sessionId: "chat-1", ap });

/** Used and held. */
export async function balance(user: string): Promise<[number, number]> {
    const quota = await service.quota(user);
    return [quota.monthlyUsed, quota.held];
}

/** A proxy to the gate that carries out a request and then loses its answer, as often as it is told. */
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

/** Waits until it is so. */
export async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
    const until = Date.now() + 20_000;
    while (!(await isSo())) {
        if (Date.now() > until) throw new Error(`does not happen: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}
