// The official Service Bus SDK with the batch queue of `spillway local`, named by SPILLWAY_QUEUE_URL:
// messages as it encodes them, and replies as it reads them.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

import { ServiceBusClient } from "@azure/service-bus";

import { start } from "./amqp.mjs";

let front;
let client;
let connection;

before(async () => {
  front = await start(process.env.SPILLWAY_QUEUE_URL);
  connection = `Endpoint=sb://127.0.0.1:${front.port};SharedAccessKeyName=any;SharedAccessKey=any;UseDevelopmentEmulator=true`;
  client = new ServiceBusClient(connection);
});

after(async () => {
  await client.close();
  front.close();
});

const request = { model: "gpt-4o", messages: [{ role: "user", content: "grüße “” 你好" }] };
const line = (custom_id) => ({ custom_id, method: "POST", url: "/v1/chat/completions", body: request });

async function answered(message) {
  const whole = { messageId: randomUUID(), applicationProperties: { app: "nightly" }, ...message };
  await client.createSender("batch").sendMessages(whole);
  const receiver = client.createReceiver("results");
  const [reply] = await receiver.receiveMessages(1, { maxWaitTimeInMs: 20_000 });
  await receiver.completeMessage(reply);
  await receiver.close();
  return { reply, message: whole };
}

// The SDK makes JSON of what is no buffer, of a text too.
const bodies = {
  object: line("c"),
  text: JSON.stringify(line("c")),
  buffer: Buffer.from(JSON.stringify(line("c"))),
  "byte order mark": Buffer.from(`\ufeff${JSON.stringify(line("c"))}`),
};

for (const [name, body] of Object.entries(bodies)) {
  test(`a body that is ${name} is read`, async () => {
    const { reply, message } = await answered({ body });
    assert.equal(reply.correlationId, message.messageId);
    assert.equal(reply.contentType, "application/json");
    assert.equal(reply.body.custom_id, "c");
    assert.equal(reply.body.error, null);
    assert.equal(reply.body.response.status_code, 200);
    const [choice] = reply.body.response.body.choices;
    assert.ok(choice.message.content.includes("grüße “” 你好"), choice.message.content);
    assert.equal(reply.applicationProperties["request-id"], message.messageId);
  });
}

test("a request alone, with what the broker carries beside it", async () => {
  const { reply } = await answered({
    body: request,
    correlationId: "k-1",
    replyTo: "results",
    replyToSessionId: "s-1",
    subject: "chat",
    timeToLive: 60_000,
    applicationProperties: {
      app: "nightly",
      deadline: new Date(Date.now() + 60_000),
      priority: "low",
      Prefer: "wait=120",
      team: "alpha",
      number: 5,
      ratio: 0.5,
      yes: true,
      nothing: null,
    },
  });
  assert.equal(reply.correlationId, "k-1");
  assert.equal(reply.sessionId, "s-1");
  assert.equal(reply.body.response.status_code, 200);
});

test("what is wrong is said", async () => {
  const { reply } = await answered({ body: Buffer.from("no JSON") });
  assert.equal(reply.body.error.code, "invalid_body");
  const late = await answered({ body: line("c"), applicationProperties: { app: "nightly", deadline: new Date(0) } });
  assert.equal(late.reply.body.error.code, "batch_expired");
});

test("the example in docs/batch.md", async () => {
  const text = await readFile(`${process.env.SPILLWAY_DOCS}/batch.md`, "utf8");
  const [, code] = text.match(/```javascript\n([^]*?)```/);
  await writeFile("example.mjs", code);
  const env = { ...process.env, SERVICE_BUS: connection };
  const { stdout } = await promisify(execFile)(process.execPath, ["example.mjs"], { env, timeout: 60_000 });
  assert.match(stdout, /^review-1 200 .*Hello/);
});
