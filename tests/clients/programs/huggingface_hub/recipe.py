"""Text through the Hub's client with a URL; it names no model, so the service's default answers."""

import os

from huggingface_hub import InferenceClient

client = InferenceClient(os.environ["OPENAI_BASE_URL"])
question = [{"role": "user", "content": "What is the weather in Bern?"}]
answer = client.chat_completion(question, max_tokens=20)

# checks
assert answer.usage.completion_tokens > 0, answer
named = InferenceClient(os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
model = os.environ["MODEL"]
pieces = named.chat.completions.create(model=model, messages=question, max_tokens=20, stream=True)
text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
whole = named.chat.completions.create(model=model, messages=question, max_tokens=20, seed=1)
assert text and whole.choices[0].message.content
schema = {
    "type": "object",
    "properties": {"kind": {"enum": ["module", "function"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
forms = (
    {"type": "json_schema", "json_schema": {"name": "kind", "schema": schema, "strict": True}},
    {"type": "json_object", "value": schema},
)
for form in forms:
    shaped = named.chat_completion(question, model=model, max_tokens=60, response_format=form)
    assert "kind" in shaped.choices[0].message.content, shaped
