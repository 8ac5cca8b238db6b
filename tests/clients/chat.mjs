// Tests the official Node client through the gate, with the scenarios of chat.py.

import assert from "node:assert/strict";
import OpenAI from "openai";

const { BASE_URL, KEYS } = process.env;
const keys = JSON.parse(KEYS);
const client = (user, options = {}) => new OpenAI({ baseURL: BASE_URL, apiKey: keys[user], ...options });
const messages = [{ role: "user", content: "Hello, model" }];
const SIX_WORDS = "This is the local model of";

const scenarios = {
    async chat() {
        const answer = await client("chat").chat.completions.create({ model: "local:words=6", messages });
        assert.equal(answer.choices[0].message.content, SIX_WORDS);
        assert.equal(answer.usage.total_tokens, 8);
    },

    async stream() {
        let text = "";
        for await (const piece of await client("stream").chat.completions.create({ model: "local:words=6", messages, stream: true })) {
            text += piece.choices[0].delta.content ?? "";
        }
        assert.equal(text, SIX_WORDS);
    },

    async stream_usage() {
        const options = { model: "local:words=6", messages, stream: true, stream_options: { include_usage: true } };
        const usages = [];
        for await (const piece of await client("stream_usage").chat.completions.create(options)) {
            if (piece.usage) usages.push(piece.usage.total_tokens);
        }
        assert.deepEqual(usages, [8]);
    },

    async tools() {
        const tool = { type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } };
        const ask = (messages) => client("tools").chat.completions.create({ model: "local", messages, tools: [tool] });
        const { message } = (await ask(messages)).choices[0];
        assert.equal(message.tool_calls[0].function.name, "weather");
        const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "sunny" };
        const answer = await ask([...messages, message, result]);
        assert.equal(answer.choices[0].finish_reason, "stop");
    },

    async responses() {
        const request = { model: "local:words=6", input: "Hello, model" };
        const answer = await client("responses").responses.create(request);
        assert.equal(answer.output_text, SIX_WORDS);
        const final = await client("responses").responses.stream(request).finalResponse();
        assert.equal(final.output_text, SIX_WORDS);
    },

    async abort() {
        const options = { model: "local:stall=5", messages, stream: true };
        const pieces = await client("abort").chat.completions.create(options);
        for await (const piece of pieces) {
            if (piece.choices[0].delta.content?.includes("is")) break;
        }
        pieces.controller.abort();
    },

    async failed() {
        const failing = client("failed", { maxRetries: 1 }).chat.completions.create({ model: "local:status=500", messages });
        await assert.rejects(failing, OpenAI.InternalServerError);
    },

    async timeout() {
        const slow = client("timeout", { timeout: 500, maxRetries: 0 });
        const asking = slow.chat.completions.create({ model: "local:head-ms=60000", messages });
        await assert.rejects(asking, OpenAI.APIConnectionTimeoutError);
    },

    async exceeded() {
        const denied = client("exceeded").chat.completions.create({ model: "dear", messages, stream: true });
        await assert.rejects(denied, (error) => {
            assert(error instanceof OpenAI.RateLimitError);
            assert.equal(error.code, "QUOTA_EXCEEDED");
            assert.equal(error.type, "insufficient_quota");
            assert.equal(error.error.required, 101);
            assert.equal(error.error.recommendedUpgrade.membershipLevel, "basic");
            return true;
        });
    },

    async stranger() {
        const asking = new OpenAI({ baseURL: BASE_URL, apiKey: "sk-made-up" }).chat.completions.create({ model: "local", messages });
        await assert.rejects(asking, OpenAI.AuthenticationError);
    },
};

for (const [name, scenario] of Object.entries(scenarios)) {
    await scenario();
    console.log(name, "ok");
}
