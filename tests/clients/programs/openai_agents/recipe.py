"""Two agents with plain model strings: one hands over, the other calls a tool."""

import os

from agents import Agent, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)  # traces would go to OpenAI
MODEL = os.environ["MODEL"]


@function_tool
def get_weather(city: str) -> str:
    """What it does."""
    return {"Bern": "sunny"}[city]


reporter = Agent(name="Weather agent", model=MODEL, tools=[get_weather])
desk = Agent(name="Desk", model=MODEL, handoffs=[reporter])
result = Runner.run_sync(desk, "What is the weather in Bern?")

# checks
import asyncio  # noqa: E402

assert result.last_agent is reporter, result.last_agent
kinds = [item.type for item in result.new_items]
assert kinds == [
    "handoff_call_item",
    "handoff_output_item",
    "tool_call_item",
    "tool_call_output_item",
    "message_output_item",
], kinds
assert result.final_output == "It is sunny in Bern.", result.final_output


async def stream() -> str:
    streamed = Runner.run_streamed(reporter, "What is the weather in Bern?")
    events = [event async for event in streamed.stream_events()]
    assert any(event.type == "raw_response_event" for event in events)
    return streamed.final_output


loop = asyncio.get_event_loop()  # that of `run_sync`, to which the client belongs
assert loop.run_until_complete(stream()) == "It is sunny in Bern."
