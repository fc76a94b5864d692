// The whole of Tunesmith through the stock Node client.
//
//     npm ci && node flow.mjs http://127.0.0.1:8000/v1

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { toFile } from "openai";

const BASE_MODEL = "tunesmith/tiny";
const TIMEOUT_MS = 300_000;
const MESSAGES = [{ role: "user", content: "question 1" }];
const ROWS = Array.from({ length: 40 }, (_, index) =>
  JSON.stringify({
    messages: [
      { role: "user", content: `question ${index}` },
      { role: "assistant", content: `answer ${index}` },
    ],
  }),
).join("\n") + "\n";

const client = new OpenAI({
  baseURL: process.argv[2],
  apiKey: process.env.OPENAI_API_KEY ?? "none",
});
const jobs = client.fineTuning.jobs;

async function all(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

async function useFiles() {
  const upload = await toFile(Buffer.from(ROWS), "rows.jsonl");
  const file = await client.files.create({ file: upload, purpose: "fine-tune" });
  assert.equal(file.status, "processed");
  assert.equal((await client.files.retrieve(file.id)).bytes, Buffer.byteLength(ROWS));
  assert.equal(await (await client.files.content(file.id)).text(), ROWS);
  const ids = (await all(client.files.list({ purpose: "fine-tune", limit: 2 }))).map((f) => f.id);
  assert.ok(ids.includes(file.id));
  return file.id;
}

async function useJobs(fileId) {
  const run = String(Date.now());
  const created = await jobs.create({
    model: BASE_MODEL,
    training_file: fileId,
    suffix: "flow",
    seed: 1,
    metadata: { run },
    method: {
      type: "supervised",
      supervised: { hyperparameters: { n_epochs: 1, batch_size: 4 } },
    },
    strategy: { type: "lora", r: 4 },
  });
  const listed = await all(jobs.list({ metadata: { run } }));
  assert.deepEqual(listed.map((job) => job.id), [created.id]);
  const job = await waitFor(created.id, "succeeded");
  const events = await all(jobs.listEvents(job.id, { limit: 2 }));
  assert.equal(events[0].message, "The job has successfully completed");
  const checkpoints = await all(jobs.checkpoints.list(job.id));
  assert.ok(checkpoints[0].fine_tuned_model_checkpoint.startsWith(job.fine_tuned_model));
  const archive = await client.get(`/fine_tuning/jobs/${job.id}/adapter`).asResponse();
  const start = Buffer.from(await archive.arrayBuffer()).subarray(0, 2).toString();
  assert.equal(start, "PK");

  const other = await jobs.create({
    model: BASE_MODEL,
    training_file: fileId,
    suffix: "to-cancel",
    hyperparameters: { n_epochs: 50, batch_size: 1 },
  });
  assert.equal((await jobs.cancel(other.id)).status, "cancelled");
  await assert.rejects(jobs.cancel(other.id), { status: 409, param: "fine_tuning_job_id" });
  return job;
}

async function waitFor(jobId, status) {
  const deadline = Date.now() + TIMEOUT_MS;
  while (Date.now() < deadline) {
    const job = await jobs.retrieve(jobId);
    if (job.status === status) return job;
    assert.ok(!["succeeded", "failed", "cancelled"].includes(job.status), JSON.stringify(job));
    await sleep(100);
  }
  throw new Error(`${jobId} is not ${status} after ${TIMEOUT_MS} ms`);
}

async function useModels(model) {
  const names = (await all(client.models.list())).map((each) => each.id);
  for (const name of [BASE_MODEL, model]) {
    assert.ok(names.includes(name));
    assert.equal((await client.models.retrieve(name)).id, name);
  }
}

async function useChat(model) {
  const options = { model, messages: MESSAGES, max_tokens: 8, seed: 3 };
  const plain = await client.chat.completions.create({ ...options, logprobs: true });
  assert.ok(plain.choices[0].logprobs.content.length > 0);
  const stream = await client.chat.completions.create({
    ...options,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, plain.choices[0].message.content);
  assert.deepEqual(usage, plain.usage);
}

async function useCompletions(model) {
  const options = { model, prompt: "question 1", max_tokens: 8, temperature: 0 };
  const plain = await client.completions.create({ ...options, logprobs: 2 });
  assert.ok(plain.choices[0].logprobs.tokens.length > 0);
  let text = "";
  for await (const chunk of await client.completions.create({ ...options, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, plain.choices[0].text);
}

async function makeMistakes() {
  await assert.rejects(
    client.chat.completions.create({ model: "nobody", messages: MESSAGES }),
    { status: 404, code: "model_not_found", param: "model" },
  );
  const long = [{ role: "user", content: "word ".repeat(5000) }];
  await assert.rejects(
    client.chat.completions.create({ model: BASE_MODEL, messages: long }),
    { status: 400, code: "context_length_exceeded", param: "messages" },
  );
}

async function cleanUp(model, fileId) {
  assert.ok((await client.models.delete(model)).deleted);
  assert.ok((await client.files.delete(fileId)).deleted);
  await assert.rejects(client.models.retrieve(model), { status: 404 });
}

const fileId = await useFiles();
const job = await useJobs(fileId);
await useModels(job.fine_tuned_model);
await useChat(job.fine_tuned_model);
await useCompletions(job.fine_tuned_model);
await makeMistakes();
await cleanUp(job.fine_tuned_model, fileId);
console.log("done");
