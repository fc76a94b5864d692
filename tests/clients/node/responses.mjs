// Responses through the stock Node client.
//
//     npm ci && node responses.mjs http://127.0.0.1:8000/v1

import assert from "node:assert/strict";
import OpenAI from "openai";

const ANSWER = "The answer is forty-two.";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const model = "tunesmith/tiny";
const tools = [{ type: "function", name: "add", parameters: { type: "object" }, strict: false }];

async function useStreams() {
  for (const input of [ANSWER, "think first", "call twice", "answer in json"]) {
    const stream = client.responses.stream({ model, input, tools });
    let text = "";
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    const final = await stream.finalResponse();
    const whole = await client.responses.create({ model, input, tools });
    assert.equal(whole.output_text, text);
    assert.deepEqual(final.output.map((item) => item.type), whole.output.map((item) => item.type));
    assert.deepEqual(final.usage, whole.usage);
  }
}

async function useConversations() {
  const asked = [{ role: "user", content: "call twice" }];
  const first = await client.responses.create({ model, input: asked, tools });
  const results = first.output.map((call) => ({
    type: "function_call_output",
    call_id: call.call_id,
    output: "3",
  }));
  const byId = { model, tools, previous_response_id: first.id, input: results };
  const byItems = { model, tools, store: false, input: [...asked, ...first.output, ...results] };
  for (const body of [byId, byItems]) {
    assert.equal((await client.responses.create(body)).output_text, ANSWER);
  }
  const items = [];
  for await (const item of client.responses.inputItems.list(first.id)) items.push(item);
  assert.equal(items[0].content[0].text, "call twice");
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
}

async function useFormats() {
  const schema = { type: "object", properties: { value: { type: "integer" } } };
  const text = { format: { type: "json_schema", name: "value", schema } };
  const parsed = await client.responses.parse({ model, input: "answer in json", text });
  assert.equal(JSON.parse(parsed.output_text).value, 42);
}

async function makeMistakes() {
  const search = { model, input: "x", tools: [{ type: "web_search" }] };
  await assert.rejects(client.responses.create(search), OpenAI.BadRequestError);
  const full = { model, input: "be full" };
  await assert.rejects(client.responses.create(full), OpenAI.RateLimitError);
}

await useStreams();
await useConversations();
await useFormats();
await makeMistakes();
console.log("done");
