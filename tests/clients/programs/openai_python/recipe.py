"""Files, a job, its model: what every version of the client has."""

import os
import time

from openai import OpenAI

client = OpenAI()
with open("train.jsonl", "rb") as rows:
    file = client.files.create(file=rows, purpose="fine-tune")
job = client.fine_tuning.jobs.create(model=os.environ["BASE"], training_file=file.id)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.5)
    job = client.fine_tuning.jobs.retrieve(job.id)

question = [{"role": "user", "content": "What is the weather in Bern?"}]
answer = client.chat.completions.create(model=job.fine_tuned_model, messages=question)

# checks
import json  # noqa: E402

assert job.status == "succeeded", job
assert job.fine_tuned_model.startswith("ft:"), job.fine_tuned_model
assert job.fine_tuned_model in [model.id for model in client.models.list()]
assert client.files.content(job.result_files[0]).text.startswith("step,")
assert answer.choices[0].finish_reason in ("stop", "length"), answer
assert answer.usage.completion_tokens > 0, answer

get_weather = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bern", "Oslo"]}},
            "required": ["city"],
        },
    },
}
call_it = {"type": "function", "function": {"name": "get_weather"}}
asked = client.chat.completions.create(
    model=job.fine_tuned_model, messages=question, tools=[get_weather], tool_choice=call_it
)
(call,) = asked.choices[0].message.tool_calls
assert json.loads(call.function.arguments)["city"] in ("Bern", "Oslo"), call

# the client's own object goes back into the history, as its documentation shows
history = [
    *question,
    asked.choices[0].message,
    {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
]
chunks = client.chat.completions.create(
    model=job.fine_tuned_model,
    messages=history,
    tools=[get_weather],
    tool_choice="none",
    stream=True,
    stream_options={"include_usage": True},
)
*_, last = chunks
assert last.usage.completion_tokens > 0, last
