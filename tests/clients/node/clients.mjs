// Clients of both generations for one gateway.

import OpenAI, { AzureOpenAI } from "openai";

export const clients = (url = process.env.SPILLWAY_URL, apiKey = "local") => ({
  azure: new AzureOpenAI({ endpoint: url, apiKey, apiVersion: "2025-04-01-preview", maxRetries: 0 }),
  v1: new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }),
  "openai-v1": new OpenAI({ baseURL: `${url}/openai/v1`, apiKey, maxRetries: 0 }),
});
