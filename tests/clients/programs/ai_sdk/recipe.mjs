import { openai } from "@ai-sdk/openai";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const model = openai(process.env.MODEL); // the default: /v1/responses
const { text } = await generateText({ model, prompt: "What is the weather in Bern?" });

const getWeather = tool({
  description: "What it does.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => ({ Bern: "sunny" })[city],
});
const withTool = await generateText({
  model,
  prompt: "What is the weather in Bern?",
  tools: { get_weather: getWeather },
  stopWhen: stepCountIs(3),
});

// checks
import assert from "node:assert/strict";

assert.equal(text, "It is sunny in Bern.");
assert.deepEqual(withTool.steps[0].toolCalls.map((call) => call.input), [{ city: "Bern" }]);
assert.equal(withTool.text, "It is sunny in Bern.");

let streamed = "";
const stream = streamText({ model, prompt: "What is the weather in Oslo?" });
for await (const part of stream.textStream) streamed += part;
assert.equal(streamed, "It is snowy in Oslo.");
assert.ok((await stream.usage).outputTokens > 0);

const form = await generateText({
  model,
  prompt: "It is sunny in Bern.",
  output: Output.object({ schema: z.object({ city: z.string(), weather: z.string() }) }),
});
assert.deepEqual(form.output, { city: "Bern", weather: "sunny" });

const chat = await generateText({
  model: openai.chat(process.env.MODEL),
  prompt: "What is the weather in Bern?",
  tools: { get_weather: getWeather },
  stopWhen: stepCountIs(3),
});
assert.equal(chat.text, "It is sunny in Bern.");

const embedding = openai.embedding("text-embedding-3-small");
const { embeddings } = await embedMany({ model: embedding, values: ["sun", "snow"] });
assert.equal(embeddings.length, 2);
assert.notDeepEqual(embeddings[0], embeddings[1]);
