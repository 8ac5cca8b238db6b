import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { QuotaGate } from "../src/index.js";
import { quotaHandler } from "../src/server.js";
import { message, newUser, service, serviceToken, url } from "./running.js";

const alice = newUser();
const handler = quotaHandler({
    url,
    token: serviceToken,
    user: (request) => (request.headers.get("cookie") === "session=alice" ? alice : null),
});
const signedIn = { cookie: "session=alice" };

test("the browser gets only the signed-in user's quota", async () => {
    await service.consume(message(alice, 9));
    const spoofs = { ...signedIn, "x-user-id": "mallory", authorization: "Bearer made-up" };
    const request = new Request("https://product.example/api/chat/quota?userUuid=mallory", { headers: spoofs });
    const answer = await handler(request);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toMatchObject({ userUuid: alice, monthlyUsed: 9 });
    const stranger = await handler(new Request("https://product.example/api/chat/quota"));
    expect([stranger.status, await stranger.json()]).toMatchObject([401, { code: "UNAUTHENTICATED" }]);
});

test("the browser follows the quota through the product's server", async () => {
    const server = createServer(async (incoming, outgoing) => {
        const headers = new Headers({ cookie: incoming.headers.cookie ?? "session=alice" });
        const controller = new AbortController();
        outgoing.on("close", () => controller.abort());
        const request = new Request(`http://product.example${incoming.url}`, { headers, signal: controller.signal });
        const answer = await handler(request);
        outgoing.writeHead(answer.status, Object.fromEntries(answer.headers));
        try {
            for await (const piece of answer.body ?? []) outgoing.write(piece);
        } catch {
            // The browser disconnected.
        }
        outgoing.end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const browser = new QuotaGate({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    const controller = new AbortController();
    let charged = false;
    for await (const quota of browser.watch(undefined, { signal: controller.signal })) {
        expect(quota.userUuid).toBe(alice);
        if (quota.monthlyUsed === 14) controller.abort();
        else if (!charged) {
            charged = true;
            await service.consume(message(alice, 5));
        }
    }
    server.closeAllConnections();
    server.close();
});

test("a wrong server token is reported as 503, not 401", async () => {
    const misconfigured = quotaHandler({ url, token: "wrong", user: () => alice });
    const answer = await misconfigured(new Request("https://product.example/api/chat/quota"));
    expect([answer.status, await answer.json()]).toMatchObject([503, { code: "QUOTA_UNAVAILABLE" }]);
});
