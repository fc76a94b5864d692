"""Responses, parsed answers, embeddings and batches: what newer versions of the client have."""

import json
import os
import time

from openai import OpenAI
from pydantic import BaseModel

client = OpenAI()
MODEL = os.environ["MODEL"]


class Report(BaseModel):
    city: str
    weather: str


response = client.responses.create(model=MODEL, input="What is the weather in Bern?")
parsed = client.responses.parse(model=MODEL, input="It is sunny in Bern.", text_format=Report)
vectors = client.embeddings.create(model="text-embedding-3-small", input=["sun", "snow"])

body = {"model": MODEL, "messages": [{"role": "user", "content": "What is the weather in Oslo?"}]}
line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
requests = client.files.create(file=("requests.jsonl", json.dumps(line).encode()), purpose="batch")
batch = client.batches.create(
    input_file_id=requests.id, endpoint="/v1/chat/completions", completion_window="24h"
)
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)
answers = client.files.content(batch.output_file_id).text

# checks
assert response.status == "completed", response
assert response.output_text == "It is sunny in Bern.", response
assert client.responses.retrieve(response.id).output_text == response.output_text
assert parsed.output_parsed == Report(city="Bern", weather="sunny"), parsed
assert len(vectors.data) == 2 and len(vectors.data[0].embedding) > 1
assert vectors.data[0].embedding != vectors.data[1].embedding
assert batch.request_counts.completed == 1 and batch.request_counts.failed == 0, batch
(answered,) = [json.loads(text) for text in answers.splitlines()]
said = answered["response"]["body"]["choices"][0]["message"]["content"]
assert (answered["custom_id"], said) == ("one", "It is snowy in Oslo."), answered

get_weather = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
asked = client.responses.create(
    model=MODEL, input="What is the weather in Bern?", tools=[get_weather]
)
(call,) = [item for item in asked.output if item.type == "function_call"]
assert json.loads(call.arguments) == {"city": "Bern"}, call
with client.responses.stream(
    model=MODEL,
    previous_response_id=asked.id,
    input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
    tools=[get_weather],
) as stream:
    kinds = [event.type for event in stream]
    told = stream.get_final_response()
assert (kinds[0], kinds[-1]) == ("response.created", "response.completed"), kinds
assert "response.output_text.delta" in kinds, kinds
assert told.output_text == "It is sunny in Bern.", told

question = [{"role": "user", "content": "It is sunny in Bern."}]
chat = client.chat.completions.parse(model=MODEL, messages=question, response_format=Report)
assert chat.choices[0].message.parsed == Report(city="Bern", weather="sunny"), chat
# what the client wrote into its message goes back as it is
again = client.chat.completions.create(
    model=MODEL,
    messages=[*question, chat.choices[0].message, {"role": "user", "content": "Thank you."}],
)
assert again.choices[0].finish_reason in ("stop", "length"), again
