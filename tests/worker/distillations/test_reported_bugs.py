"""Faults that users of other pipelines reported; docs/lab-notes.md lists them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.datasets.examples import ChatExample
from core.datasets.read import read_examples
from core.spec.evals import ExternalModel
from tests.api.live import serve
from tests.worker.distillations.distilled import (
    asked,
    attempt_until,
    create,
    files_of,
    prompts_of,
    row_of,
)
from tests.worker.workshop import Workshop

TEACHER = ExternalModel(endpoint="cloud", model="gpt-x")


class Cloud:
    """A service of others that answers each request with the next message, and then the last."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)
        self.bodies: list[dict[str, Any]] = []
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        message = self._messages[min(len(self.bodies), len(self._messages)) - 1]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"} | message}
        return JSONResponse({"model": "gpt-x", "choices": [choice]})


@contextmanager
def registered(workshop: Workshop, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = workshop.folder / "endpoints.toml"
    settings = workshop.settings().model_copy(update={"endpoints_file": path})
    monkeypatch.setattr(type(workshop), "settings", lambda self, worker_id="w": settings)
    with serve(cloud.app) as url:
        path.write_text(f'[[endpoints]]\nname = "cloud"\nbase_url = "{url}/v1"\n')
        yield


def written(workshop: Workshop) -> list[dict[str, Any]]:
    (file,) = files_of(workshop)
    text = b"".join(workshop.store.read(file.blob_key)).decode()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "4", "reasoning_content": "2 and 2"},
        {"content": "4", "reasoning": "2 and 2"},
        {"content": "<think>\n2 and 2\n</think>\n\n4"},
        {"content": "2 and 2\n</think>\n\n4"},
    ],
)
def test_reasoning_of_the_teacher_is_trained_on_as_reasoning(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any]
) -> None:
    with registered(workshop, Cloud(message), monkeypatch):
        create(workshop, asked("2 + 2?"), teacher=TEACHER)
        assert attempt_until(workshop, None) is None
    (file,) = files_of(workshop)
    path = workshop.folder / "written.jsonl"
    workshop.store.fetch(file.blob_key, path)
    ((_, example),) = read_examples(path)
    assert isinstance(example, ChatExample)
    answer = example.messages[-1]
    assert (answer["content"], answer["reasoning_content"]) == ("4", "2 and 2")


def test_a_service_that_ignores_n_is_asked_for_each_answer(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = Cloud({"content": "first"}, {"content": "second"}, {"content": "second"})
    with registered(workshop, cloud, monkeypatch):
        id_ = create(workshop, asked("?"), teacher=TEACHER, samples=3, keep=3)
        assert attempt_until(workshop, None) is None
    assert [body.get("n") for body in cloud.bodies] == [None] * 3
    assert sorted(body["seed"] for body in cloud.bodies) == [42, 43, 44]
    assert sorted(row["messages"][-1]["content"] for row in written(workshop)) == [
        "first",
        "second",
    ]
    (prompt,) = prompts_of(workshop, id_)
    assert sorted(each.status for each in prompt.candidates) == ["dropped", "kept", "kept"]


def test_refusals_in_words_are_dropped_by_a_grader_and_the_error_says_so(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = {
        "type": "python",
        "name": "no refusal",
        "source": "def grade(sample, item):\n"
        "    return float(\"can't assist\" not in sample['output_text'])\n",
    }
    with registered(workshop, Cloud({"content": "I'm sorry, I can't assist."}), monkeypatch):
        id_ = create(workshop, asked("?"), grader, teacher=TEACHER)
        assert attempt_until(workshop, None) is None
    row = row_of(workshop, id_)
    assert row.error is not None and row.error["code"] == "no_rows_kept"
    assert "does not pass 'no refusal'" in row.error["message"]
    (prompt,) = prompts_of(workshop, id_)
    assert prompt.candidates[0].message == {
        "role": "assistant",
        "content": "I'm sorry, I can't assist.",
    }


def test_contents_in_parts_and_arguments_as_objects_become_rows(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    parts = [{"type": "text", "text": "The "}, {"type": "text", "text": "answer"}]
    cloud = Cloud({"content": parts}, {"content": None, "tool_calls": [call]})
    with registered(workshop, cloud, monkeypatch):
        create(workshop, asked("?"), teacher=TEACHER, samples=2, keep=2, params={"tools": [tool]})
        assert attempt_until(workshop, None) is None
    answers = [row["messages"][-1] for row in written(workshop)]
    contents = [answer["content"] for answer in answers]
    assert sorted(contents) == ["", "The answer"]
    (called,) = [answer for answer in answers if "tool_calls" in answer]
    assert called["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
