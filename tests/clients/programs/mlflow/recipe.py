"""Traces of every request in MLflow."""

import os

import mlflow
from openai import OpenAI

mlflow.openai.autolog()
client = OpenAI()
MODEL = os.environ["MODEL"]
question = [{"role": "user", "content": "What is the weather in Bern?"}]
client.chat.completions.create(model=MODEL, messages=question)
client.responses.create(model=MODEL, input="What is the weather in Oslo?")
client.embeddings.create(model="text-embedding-3-small", input=["sun", "snow"])

# checks
import json  # noqa: E402

stream = client.chat.completions.create(model=MODEL, messages=question, stream=True)
assert len(list(stream)) > 1
mlflow.flush_trace_async_logging()
traces = mlflow.search_traces(return_type="list", flush=True)
said = [json.dumps(trace.data.spans[0].outputs) for trace in traces]
assert all(trace.info.state == "OK" for trace in traces), traces
assert len(traces) == 4, said
assert sum("It is sunny in Bern." in text for text in said) == 2, said
assert sum("It is snowy in Oslo." in text for text in said) == 1, said
