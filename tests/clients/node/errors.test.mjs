// Each error reaches an app as the class that the SDK has for it. SPILLWAY_LOCKED_URL names a
// gateway that asks for the key `right` and whose only deployment, on SPILLWAY_FULL_PORT, is full.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import test, { after, before } from "node:test";

import OpenAI from "openai";

import { clients } from "./clients.mjs";

const hello = [{ role: "user", content: "Hello" }];
const filtered = [{ role: "user", content: "simulate-content-filter" }];

const full = createServer((request, response) => {
  request.resume().on("end", () => {
    response.writeHead(429, { "retry-after-ms": "7000" });
    response.end();
  });
});
before(() => new Promise((ready) => full.listen(Number(process.env.SPILLWAY_FULL_PORT), "127.0.0.1", ready)));
after(() => {
  full.closeAllConnections();
  full.close();
});

const caught = async (client, call) => {
  const body = { model: "gpt-4o", messages: hello, ...call };
  return client.chat.completions.create(body).then(assert.fail, (error) => error);
};

for (const stream of [false, true]) {
  const form = stream ? "streamed" : "whole";
  for (const [name, client] of Object.entries(clients())) {
    test(`${name}, ${form}: 400 of the backend`, async () => {
      const error = await caught(client, { stream, temperature: 7 });
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, "temperature");
    });

    test(`${name}, ${form}: 400 of the content filter`, async () => {
      const error = await caught(client, { stream, messages: filtered });
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, "content_filter");
    });

    test(`${name}, ${form}: 404`, async () => {
      const error = await caught(client, { stream, model: "gpt-none" });
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
    });
  }

  for (const [name, client] of Object.entries(clients(process.env.SPILLWAY_LOCKED_URL, "wrong"))) {
    test(`${name}, ${form}: 401`, async () => {
      const error = await caught(client, { stream });
      assert.ok(error instanceof OpenAI.AuthenticationError);
      assert.equal(error.code, "invalid_api_key");
    });
  }

  for (const [name, client] of Object.entries(clients(process.env.SPILLWAY_LOCKED_URL, "right"))) {
    test(`${name}, ${form}: 429`, async () => {
      const error = await caught(client, { stream });
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.equal(error.code, "all_deployments_full");
      assert.ok(Number(error.headers.get("retry-after")) >= 1);
    });
  }
}
