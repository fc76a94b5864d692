"""A tool and a typed result through pydantic-ai."""

import os

from pydantic import BaseModel
from pydantic_ai import Agent


class Report(BaseModel):
    city: str
    weather: str


agent = Agent(f"openai:{os.environ['MODEL']}")


@agent.tool_plain
def get_weather(city: str) -> str:
    """What it does."""
    return {"Bern": "sunny"}[city]


result = agent.run_sync("What is the weather in Bern?")
typed = Agent(f"openai:{os.environ['MODEL']}", output_type=Report)
report = typed.run_sync("It is sunny in Bern.").output

# checks
import asyncio  # noqa: E402

from pydantic_ai.messages import ToolCallPart  # noqa: E402

calls = [
    part
    for message in result.all_messages()
    for part in message.parts
    if isinstance(part, ToolCallPart)
]
assert [(call.tool_name, call.args_as_dict()) for call in calls] == [
    ("get_weather", {"city": "Bern"})
], calls
assert result.output == "It is sunny in Bern.", result.output
assert report == Report(city="Bern", weather="sunny"), report


async def stream() -> str:
    async with agent.run_stream("What is the weather in Bern?") as streamed:
        return await streamed.get_output()


assert asyncio.run(stream()) == "It is sunny in Bern."
chat = Agent(f"openai-chat:{os.environ['MODEL']}")
assert chat.run_sync("What is the weather in Bern?").output == "It is sunny in Bern."
