"""Files, jobs, chat, responses, batches and embeddings through LiteLLM."""

import json
import os
import time

import litellm

OPENAI = {"custom_llm_provider": "openai"}
with open("train.jsonl", "rb") as rows:
    file = litellm.create_file(file=rows, purpose="fine-tune", **OPENAI)
job = litellm.create_fine_tuning_job(model=os.environ["BASE"], training_file=file.id, **OPENAI)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.5)
    job = litellm.retrieve_fine_tuning_job(job.id, **OPENAI)

MODEL = os.environ["MODEL"]
question = [{"role": "user", "content": "What is the weather in Bern?"}]
chat = litellm.completion(model=MODEL, messages=question)
response = litellm.responses(model=MODEL, input="What is the weather in Bern?")
vectors = litellm.embedding(model="openai/text-embedding-3-small", input=["sun", "snow"])

line = {
    "custom_id": "one",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": MODEL, "messages": question},
}
requests = litellm.create_file(
    file=("requests.jsonl", json.dumps(line).encode()), purpose="batch", **OPENAI
)
batch = litellm.create_batch(
    completion_window="24h",
    endpoint="/v1/chat/completions",
    input_file_id=requests.id,
    **OPENAI,
)
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = litellm.retrieve_batch(batch_id=batch.id, **OPENAI)
answers = litellm.file_content(file_id=batch.output_file_id, **OPENAI).text

# checks
assert job.status == "succeeded", job
own = litellm.completion(model=job.fine_tuned_model, messages=question)
assert own.usage.completion_tokens > 0, own
assert chat.choices[0].message.content == "It is sunny in Bern.", chat
(text,) = [part.text for item in response.output for part in item.content]
assert text == "It is sunny in Bern.", response
assert len(vectors.data) == 2 and vectors.data[0]["embedding"] != vectors.data[1]["embedding"]
answered = json.loads(answers)
said = answered["response"]["body"]["choices"][0]["message"]["content"]
assert (answered["custom_id"], said) == ("one", "It is sunny in Bern."), answered

get_weather = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
asked = litellm.completion(model=MODEL, messages=question, tools=[get_weather])
(call,) = asked.choices[0].message.tool_calls
assert json.loads(call.function.arguments) == {"city": "Bern"}, call
history = [
    *question,
    asked.choices[0].message,
    {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
]
pieces = litellm.completion(model=MODEL, messages=history, tools=[get_weather], stream=True)
streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
assert streamed == "It is sunny in Bern.", streamed
