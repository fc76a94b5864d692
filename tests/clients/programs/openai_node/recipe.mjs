import { createReadStream } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";

const client = new OpenAI();
const file = await client.files.create({ file: createReadStream("train.jsonl"), purpose: "fine-tune" });
let job = await client.fineTuning.jobs.create({ model: process.env.BASE, training_file: file.id });
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await sleep(500);
  job = await client.fineTuning.jobs.retrieve(job.id);
}
const messages = [{ role: "user", content: "What is the weather in Bern?" }];
const answer = await client.chat.completions.create({ model: job.fine_tuned_model, messages });

const model = process.env.MODEL;
const response = await client.responses.create({ model, input: "What is the weather in Bern?" });
const vectors = await client.embeddings.create({ model: "text-embedding-3-small", input: ["sun", "snow"] });

// checks
import assert from "node:assert/strict";
import { toFile } from "openai";

assert.equal(job.status, "succeeded");
assert.ok(answer.usage.completion_tokens > 0);
assert.equal(response.output_text, "It is sunny in Bern.");
assert.equal(vectors.data.length, 2);
assert.notDeepEqual(vectors.data[0].embedding, vectors.data[1].embedding);

const schema = {
  type: "object",
  properties: { city: { type: "string" }, weather: { type: "string" } },
  required: ["city", "weather"],
  additionalProperties: false,
};
const told = [{ role: "user", content: "It is sunny in Bern." }];
const format = { type: "json_schema", json_schema: { name: "report", strict: true, schema } };
const parsed = await client.chat.completions.parse({ model, messages: told, response_format: format });
assert.deepEqual(JSON.parse(parsed.choices[0].message.content), { city: "Bern", weather: "sunny" });
// what the client wrote into its message goes back as it is
const thanks = { role: "user", content: "Thank you." };
await client.chat.completions.create({ model, messages: [...told, parsed.choices[0].message, thanks] });

const getWeather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    function: ({ city }) => ({ Bern: "sunny" })[city],
    parse: JSON.parse,
  },
};
const runner = client.chat.completions.runTools({ model, messages, tools: [getWeather] });
assert.equal(await runner.finalContent(), "It is sunny in Bern.");

const kinds = [];
for await (const event of await client.responses.create({ model, input: "What is the weather in Oslo?", stream: true }))
  kinds.push(event.type);
assert.equal(kinds[0], "response.created");
assert.equal(kinds.at(-1), "response.completed");

const url = "/v1/chat/completions";
const line = JSON.stringify({ custom_id: "one", method: "POST", url, body: { model, messages } });
const requests = await client.files.create({ file: await toFile(Buffer.from(line), "b.jsonl"), purpose: "batch" });
let batch = await client.batches.create({ input_file_id: requests.id, endpoint: url, completion_window: "24h" });
while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
  await sleep(500);
  batch = await client.batches.retrieve(batch.id);
}
const output = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
assert.equal(output.response.body.choices[0].message.content, "It is sunny in Bern.");
