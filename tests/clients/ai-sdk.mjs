// Tests the server side of the Vercel AI SDK through the gate, on both APIs.

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, streamText } from "ai";

const { BASE_URL, KEYS } = process.env;
const keys = JSON.parse(KEYS);
const provider = (user) => createOpenAI({ baseURL: BASE_URL, apiKey: keys[user] });
const prompt = "Hello, model";
const SIX_WORDS = "This is the local model of";

const scenarios = {
    async chat() {
        const { text, usage } = await generateText({ model: provider("chat").chat("local:words=6"), prompt });
        assert.equal(text, SIX_WORDS);
        assert.equal(usage.totalTokens, 8);
    },

    async stream() {
        const result = streamText({ model: provider("stream").chat("local:words=6"), prompt });
        let text = "";
        for await (const piece of result.textStream) text += piece;
        assert.equal(text, SIX_WORDS);
    },

    async responses() {
        const { text } = await generateText({ model: provider("responses").responses("local:words=6"), prompt });
        assert.equal(text, SIX_WORDS);
        const result = streamText({ model: provider("responses").responses("local:words=6"), prompt });
        assert.equal(await result.text, SIX_WORDS);
    },

    async abort() {
        const controller = new AbortController();
        const result = streamText({
            model: provider("abort").chat("local:stall=5"), prompt, abortSignal: controller.signal, onError() {},
        });
        for await (const piece of result.textStream) {
            if (piece.includes("is")) controller.abort();
        }
    },

    async exceeded() {
        // By default, the SDK retries every 429, whatever the answer contains.
        const denied = generateText({ model: provider("exceeded").chat("dear"), prompt, maxRetries: 0 });
        await assert.rejects(denied, (error) => {
            assert(APICallError.isInstance(error));
            assert.equal(error.statusCode, 429);
            assert.equal(JSON.parse(error.responseBody).error.code, "QUOTA_EXCEEDED");
            return true;
        });
    },
};

for (const [name, scenario] of Object.entries(scenarios)) {
    await scenario();
    console.log(name, "ok");
}
