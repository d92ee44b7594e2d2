// The official OpenAI SDK for Node against a running gateway, named by SPILLWAY_URL.

import assert from "node:assert/strict";
import test from "node:test";

import OpenAI, { AzureOpenAI } from "openai";

const url = process.env.SPILLWAY_URL;
const messages = [{ role: "user", content: "Hello" }];
const clients = {
  azure: new AzureOpenAI({ endpoint: url, apiKey: "local", apiVersion: "2024-10-21", maxRetries: 0 }),
  v1: new OpenAI({ baseURL: `${url}/v1`, apiKey: "local", maxRetries: 0 }),
};

for (const [name, client] of Object.entries(clients)) {
  test(`${name}: chat`, async () => {
    const answer = await client.chat.completions.create({ model: "gpt-4o", messages });
    assert.match(answer.choices[0].message.content, /Hello/);
    assert.ok(answer.usage.total_tokens > 0);
  });

  for (const asked of [true, false]) {
    test(`${name}: streamed chat, usage asked for: ${asked}`, async () => {
      const options = asked ? { stream_options: { include_usage: true } } : {};
      const stream = await client.chat.completions.create({ model: "gpt-4o", messages, stream: true, ...options });
      let text = "";
      let usage = null;
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta?.content ?? "";
        usage = chunk.usage ?? usage;
      }
      assert.match(text, /Hello/);
      assert.equal(usage !== null, asked);
    });
  }

  test(`${name}: embeddings`, async () => {
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: "a" });
    assert.equal(answer.data[0].embedding.length, 1536);
  });

  test(`${name}: an unknown model is a NotFoundError`, async () => {
    await assert.rejects(client.chat.completions.create({ model: "gpt-none", messages }), OpenAI.NotFoundError);
  });
}

test("responses are chained", async () => {
  const first = await clients.v1.responses.create({ model: "gpt-4o", input: "Hello" });
  const second = await clients.v1.responses.create({ model: "gpt-4o", input: "x", previous_response_id: first.id });
  assert.equal(second.previous_response_id, first.id);
});
