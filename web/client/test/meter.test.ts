import { expect, test } from "vitest";
import { QuotaGate } from "../src/index.js";
import { quotaHandler } from "../src/server.js";

/** Paths that are asked for; every answer is an empty object. */
function recording() {
    const paths: string[] = [];
    const answering: typeof fetch = async (input) => {
        paths.push(new URL(String(input)).pathname);
        return new Response("{}", { headers: { "content-type": "application/json" } });
    };
    return { paths, options: { url: "https://gate.example", token: "t", fetch: answering } };
}

test("a meter changes the paths of its routes, and not that of levels", async () => {
    const { paths, options } = recording();
    const gate = new QuotaGate({ ...options, meter: "image" });
    const message = { userUuid: "alice", sessionId: "s" };
    await gate.quota("alice");
    await gate.consume(message);
    await gate.reserve(message);
    await gate.commit("r1");
    await gate.release("r1");
    await gate.extend("r1");
    await gate.changeLevel("alice", "plus");
    const quota = "/api/image/quota";
    const settled = ["commit", "release", "extend"].map((verb) => `${quota}/reservations/r1/${verb}`);
    expect(paths).toEqual([quota, `${quota}/consume`, `${quota}/reservations`, ...settled, "/api/chat/quota/level"]);
});

test("the product's server asks for its meter", async () => {
    const { paths, options } = recording();
    const handler = quotaHandler({ ...options, meter: "image", user: () => "alice" });
    await handler(new Request("https://product.example/api/image/quota"));
    await handler(new Request("https://product.example/api/image/quota/stream"));
    expect(paths).toEqual(["/api/image/quota", "/api/image/quota/stream"]);
});

test("a name that is not one of a meter is refused", () => {
    const { options } = recording();
    for (const meter of ["", "Image", "1image", "a/b", "../admin", "x".repeat(33)]) {
        expect(() => new QuotaGate({ ...options, meter }), meter).toThrow(TypeError);
    }
});
