"""The stock Python client reads every kind of response, whole and as a stream."""

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseReasoningItem
from pydantic import BaseModel

from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine

MODEL = "tunesmith/tiny"


class Value(BaseModel):
    value: int


class Add(BaseModel):
    """Adds one."""

    a: int


TOOL: Any = openai.pydantic_function_tool(Add, name="add")
FUNCTION: Any = {"type": "function", **TOOL["function"]}


@pytest.fixture
def openai_client(api: Api, engine: ScriptedEngine) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


@pytest.mark.parametrize(
    "text", [ANSWER, "think first", "call twice", "say strange things", "answer in json"]
)
@pytest.mark.parametrize("options", [{}, {"reasoning": {"summary": "auto"}}], ids=["", "summary"])
def test_stream_is_accumulated_to_the_whole_response(
    openai_client: OpenAI, text: str, options: Any
) -> None:
    """The client's own accumulator raises if an event is missing, or comes too early."""
    with openai_client.responses.stream(
        model=MODEL, input=text, tools=[FUNCTION], **options
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text
    whole = openai_client.responses.create(model=MODEL, input=text, tools=[FUNCTION], **options)
    assert whole.output_text == final.output_text
    assert [item.type for item in whole.output] == [item.type for item in final.output]
    assert whole.usage == final.usage
    stored = openai_client.responses.retrieve(final.id)
    assert [item.id for item in stored.output] == [item.id for item in final.output]


def test_every_event_is_of_a_known_type(openai_client: OpenAI) -> None:
    for text in ("think first", "call twice", ANSWER, "fail"):
        for event in openai_client.responses.create(model=MODEL, input=text, stream=True):
            assert type(event).__name__.startswith("Response"), event
            strict = type(event).model_validate(event.model_dump(exclude_unset=True))
            assert strict.type == event.type


def test_objects_are_complete_for_the_types_of_the_client(openai_client: OpenAI) -> None:
    response = openai_client.responses.create(model=MODEL, input="think first", user="me")
    assert Response.model_validate(response.model_dump(exclude_unset=True)) == response
    reasoning = response.output[0]
    assert isinstance(reasoning, ResponseReasoningItem) and reasoning.content
    assert reasoning.content[0].text == "Six times seven. Done."


def test_structured_output_is_parsed(openai_client: OpenAI, engine: ScriptedEngine) -> None:
    parsed = openai_client.responses.parse(model=MODEL, input="answer in json", text_format=Value)
    assert parsed.output_parsed == Value(value=42)
    output = engine.requests[-1].sampling.structured_output
    assert output is not None and output.type == "json_schema"
    with openai_client.responses.stream(
        model=MODEL, input="answer in json", text_format=Value
    ) as stream:
        assert stream.get_final_response().output_parsed == Value(value=42)


@pytest.mark.parametrize("is_stored", [True, False])
def test_tool_loop_with_what_the_client_parsed(openai_client: OpenAI, is_stored: bool) -> None:
    """The parsed items, with fields of the client, are sent back as they are."""
    asked: list[Any] = [{"role": "user", "content": "call twice"}]
    first = openai_client.responses.parse(model=MODEL, input=asked, tools=[FUNCTION])
    calls = [item for item in first.output if item.type == "function_call"]
    assert [call.parsed_arguments for call in calls] == [{"a": 1}, {"a": 2}]
    results: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "3"} for call in calls
    ]
    if is_stored:
        second = openai_client.responses.create(
            model=MODEL, input=results, previous_response_id=first.id, tools=[FUNCTION]
        )
    else:
        back = [*asked, *first.output, *results]
        second = openai_client.responses.create(
            model=MODEL, input=back, tools=[FUNCTION], store=False
        )
    assert second.output_text == ANSWER


def test_items_are_listed_page_by_page(openai_client: OpenAI) -> None:
    response = openai_client.responses.create(
        model=MODEL, input=[{"role": "user", "content": str(number)} for number in range(7)]
    )
    items = list(openai_client.responses.input_items.list(response.id, limit=3, order="asc"))
    assert [item.content[0].text for item in items] == [str(number) for number in range(7)]  # type: ignore[union-attr]
    openai_client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(response.id)


def test_background_response_is_polled_streamed_and_cancelled(
    api: Api, openai_client: OpenAI
) -> None:
    responses = openai_client.responses
    with light_worker_of(api):
        stream = responses.create(model=MODEL, input="Hi.", background=True, stream=True)
        events = list(stream)
        last: Any = events[-1]
        assert (last.type, last.response.output_text) == ("response.completed", ANSWER)
        with responses.stream(response_id=last.response.id, starting_after=3) as again:
            assert [event.sequence_number for event in again] == [
                event.sequence_number for event in events[4:]
            ]
        running = responses.create(model=MODEL, input="never end", background=True)
        while responses.retrieve(running.id).status == "queued":
            time.sleep(0.05)
        assert responses.cancel(running.id).status == "cancelled"


def test_failures_are_those_of_the_client(openai_client: OpenAI) -> None:
    stream = openai_client.responses.create(model=MODEL, input="fail", stream=True)
    last: Any = list(stream)[-1]
    assert (last.type, last.response.error.code) == ("response.failed", "server_error")
    with pytest.raises(openai.BadRequestError, match="web_search"):
        openai_client.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}])
    with pytest.raises(openai.RateLimitError):
        openai_client.responses.create(model=MODEL, input="be full")
