"""Responses from the real engine and a real light worker, through an unmodified client."""

import json
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from tests.end_to_end.service import Service
from tests.end_to_end.test_answers import MODEL, SCHEMA

QUESTION = "Tell me about the module `json`."
TIMEOUT_SECONDS = 300


@pytest.fixture
def responses(service: Service) -> Iterator[Any]:
    with service.client as client:
        yield client.responses


def test_a_conversation_is_that_of_a_chat(service: Service, responses: Any) -> None:
    """The same messages and temperature 0 give the same text on both routes, whole and streamed."""
    options: Any = {"model": MODEL, "temperature": 0}
    first = responses.create(
        **options, input=QUESTION, instructions="Be brief.", max_output_tokens=24
    )
    system = {"role": "system", "content": "Be brief."}
    messages: Any = [system, {"role": "user", "content": QUESTION}]
    chat = service.client.chat.completions
    said = chat.create(**options, messages=messages, max_tokens=24)
    assert first.output_text == said.choices[0].message.content
    assert first.usage.input_tokens == said.usage.prompt_tokens  # type: ignore[union-attr]
    more = {"input": "And `re`?", "instructions": "Be brief.", "max_output_tokens": 24}
    second = responses.create(**options, **more, previous_response_id=first.id)
    messages += [
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And `re`?"},
    ]
    said = chat.create(**options, messages=messages, max_tokens=24)
    assert second.output_text == said.choices[0].message.content
    with responses.stream(**options, **more, previous_response_id=first.id) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == second.output_text


def test_a_text_follows_a_json_schema(responses: Any) -> None:
    format_ = {"type": "json_schema", "name": "fact", "schema": SCHEMA, "strict": True}
    answer = responses.create(
        model=MODEL, input=QUESTION, text={"format": format_}, max_output_tokens=200
    )
    assert answer.status == "completed"
    jsonschema.validate(json.loads(answer.output_text), SCHEMA)
    with pytest.raises(openai.BadRequestError) as caught:
        wrong = format_ | {"schema": {"type": "nonsense"}}
        responses.create(model=MODEL, input=QUESTION, text={"format": wrong})
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "text.format")


def test_a_long_conversation_is_truncated_or_refused(responses: Any) -> None:
    turn = [{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "ok"}]
    options = {
        "input": [*turn * 20, {"role": "user", "content": QUESTION}],
        "max_output_tokens": 16,
    }
    with pytest.raises(openai.BadRequestError) as caught:
        responses.create(model=MODEL, **options)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    answer = responses.create(model=MODEL, **options, truncation="auto")
    assert answer.usage.input_tokens > 100  # some of the turns are still there


def test_a_light_worker_runs_a_background_response(responses: Any) -> None:
    queued = responses.create(
        model=MODEL, input=QUESTION, background=True, stream=True, max_output_tokens=16
    )
    events = list(queued)
    last = events[-1].response
    assert last.status in ("completed", "incomplete") and last.output_text
    again = responses.retrieve(last.id, stream=True, starting_after=2)
    assert [event.sequence_number for event in again] == [
        event.sequence_number for event in events[3:]
    ]
    polled = responses.create(model=MODEL, input=QUESTION, background=True, max_output_tokens=16)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (polled := responses.retrieve(polled.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert polled.output_text
