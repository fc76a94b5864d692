"""Text, tools, forms and embeddings through LangChain."""

import os

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel


class Report(BaseModel):
    city: str
    weather: str


def get_weather(city: str) -> str:
    """What it does."""
    return {"Bern": "sunny"}[city]


model = ChatOpenAI(model=os.environ["MODEL"])
answer = model.invoke("What is the weather in Bern?")
calls = model.bind_tools([get_weather]).invoke("What is the weather in Bern?").tool_calls
report = model.with_structured_output(Report).invoke("It is sunny in Bern.")

# texts are sent as texts, not as tokens of OpenAI's vocabulary
embeddings = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
vectors = embeddings.embed_documents(["sun", "snow"])

# checks
from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402

assert answer.content == "It is sunny in Bern.", answer
assert [(call["name"], call["args"]) for call in calls] == [("get_weather", {"city": "Bern"})]
assert report == Report(city="Bern", weather="sunny"), report
assert len(vectors) == 2 and vectors[0] != vectors[1]
streamed = "".join(str(chunk.content) for chunk in model.stream("What is the weather in Oslo?"))
assert streamed == "It is snowy in Oslo.", streamed
bound = model.bind_tools([get_weather])
history = [HumanMessage("What is the weather in Bern?")]
asked = bound.invoke(history)
(call,) = asked.tool_calls
result = ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])
assert bound.invoke([*history, asked, result]).content == "It is sunny in Bern."
responses = ChatOpenAI(model=os.environ["MODEL"], use_responses_api=True)
assert responses.invoke("What is the weather in Bern?").text == "It is sunny in Bern."
