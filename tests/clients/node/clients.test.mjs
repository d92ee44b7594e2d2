// The official OpenAI SDK for Node against a running gateway, named by SPILLWAY_URL.

import assert from "node:assert/strict";
import test from "node:test";

import { toFile } from "openai";

import { clients } from "./clients.mjs";

const messages = [{ role: "user", content: "Hello" }];
const asked = [{ role: "user", content: "What is the weather in Lund?" }];
const parameters = { type: "object", properties: { place: { type: "string" } }, required: ["place"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const sound = Buffer.concat([Buffer.from("RIFF\x24\x00\x00\x00WAVE", "latin1"), Buffer.alloc(4000)]);

const all = async (stream) => {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
};

for (const [name, client] of Object.entries(clients())) {
  const { completions } = client.chat;

  test(`${name}: chat`, async () => {
    const { data, response } = await completions.create({ model: "gpt-4o", messages }).withResponse();
    assert.match(data.choices[0].message.content, /Hello/);
    assert.ok(data.usage.total_tokens > 0);
    assert.match(response.headers.get("x-spillway-kind"), /^(ptu|payg)$/);
    assert.equal(response.headers.get("x-spillway-request-id").length, 26);
  });

  for (const included of [true, false]) {
    test(`${name}: streamed chat, usage asked for: ${included}`, async () => {
      const options = included ? { stream_options: { include_usage: true } } : {};
      const chunks = await all(await completions.create({ model: "gpt-4o", messages, stream: true, ...options }));
      assert.match(chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join(""), /Hello/);
      assert.equal(chunks.some((chunk) => chunk.usage), included);
      assert.equal(chunks.at(-1).choices.length === 0, included);
    });
  }

  test(`${name}: a stream that is left midway`, async () => {
    const long = [{ role: "user", content: "simulate-tokens:2000" }];
    const stream = await completions.create({ model: "gpt-4o", messages: long, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices.length > 0) break;
    }
    assert.ok(stream.controller.signal.aborted);
  });

  test(`${name}: tools`, async () => {
    const answer = await completions.create({ model: "gpt-4o", messages: asked, tools });
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(call.function.name, "weather");
    assert.ok("place" in JSON.parse(call.function.arguments));
    const told = [...asked, answer.choices[0].message, { role: "tool", tool_call_id: call.id, content: "rain" }];
    const last = await completions.create({ model: "gpt-4o", messages: told, tools, tool_choice: "none" });
    assert.ok(last.choices[0].message.content);
  });

  test(`${name}: streamed tools`, async () => {
    const final = await completions.stream({ model: "gpt-4o", messages: asked, tools }).finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    assert.equal(call.function.name, "weather");
    assert.ok("place" in JSON.parse(call.function.arguments));
  });

  test(`${name}: embeddings`, async () => {
    const answer = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] });
    assert.equal(answer.data.length, 2);
    assert.equal(answer.data[0].embedding.length, 1536);
  });

  test(`${name}: responses are chained, read and deleted`, async () => {
    const first = await client.responses.create({ model: "gpt-4o", input: "Hello" });
    assert.match(first.output_text, /Hello/);
    const next = { model: "gpt-4o", input: "x", previous_response_id: first.id };
    const second = await client.responses.create(next);
    assert.equal(second.previous_response_id, first.id);
    assert.equal((await client.responses.retrieve(first.id)).id, first.id);
    await client.responses.delete(first.id);
    await assert.rejects(client.responses.retrieve(first.id), { status: 404 });
  });

  test(`${name}: streamed responses are chained`, async () => {
    let previous = null;
    for (let turn = 0; turn < 3; turn += 1) {
      const call = { model: "gpt-4o", input: "Hello", stream: true, previous_response_id: previous };
      const events = await all(await client.responses.create(call));
      assert.equal(events[0].type, "response.created");
      assert.equal(events.at(-1).type, "response.completed");
      const { response } = events.at(-1);
      assert.equal(response.previous_response_id, previous);
      assert.ok(response.usage.total_tokens > 0);
      previous = response.id;
    }
  });

  test(`${name}: images`, async () => {
    const answer = await client.images.generate({ model: "gpt-image-1", prompt: "a weir" });
    const image = Buffer.from(answer.data[0].b64_json, "base64");
    assert.equal(image.subarray(1, 4).toString(), "PNG");
    const file = await toFile(image, "a.png", { type: "image/png" });
    const edited = await client.images.edit({ model: "gpt-image-1", prompt: "with a ladder", image: file });
    assert.ok(edited.data[0].b64_json);
  });

  test(`${name}: a transcription upload`, async () => {
    const file = await toFile(sound, "a.wav", { type: "audio/wav" });
    const answer = await client.audio.transcriptions.create({ model: "gpt-4o-transcribe", file });
    assert.ok(answer.text);
  });

  test(`${name}: speech`, async () => {
    const answer = await client.audio.speech.create({ model: "tts", voice: "alloy", input: "Hello" });
    assert.ok((await answer.arrayBuffer()).byteLength > 0);
  });

  test(`${name}: models`, async () => {
    const names = (await all(await client.models.list())).map((model) => model.id);
    assert.ok(names.includes("gpt-4o"));
    assert.equal((await client.models.retrieve("gpt-4o")).id, "gpt-4o");
  });
}
