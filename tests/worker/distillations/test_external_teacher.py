"""A teacher of others that fails, limits, hangs and lies: prompts fail with reasons."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from core.spec.evals import ExternalModel
from tests.api.live import serve
from tests.worker.distillations.distilled import (
    asked,
    attempt_until,
    create,
    jobs_of,
    prompts_of,
    row_of,
)
from tests.worker.workshop import Workshop
from worker.answering import external

TEACHER = ExternalModel(endpoint="cloud", model="gpt-x")
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def completion(content: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content} | more
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return {"model": "gpt-x-2026-01-31", "choices": [choice]}


def calling(name: str, arguments: str) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return completion(None, "tool_calls", tool_calls=[call])


ANSWERS: dict[str, dict[str, Any]] = {
    "well": completion("4"),
    "other model": completion("4") | {"model": "gpt-x-mini"},
    "no choices": {"model": "gpt-x", "choices": []},
    "cut": completion("The answer is", "length"),
    "withheld": completion("", "content_filter"),
    "refused": completion(None, refusal="I will not."),
    "empty": completion(" \n"),
    "call": calling("add", '{"a": 1}'),
    "call without json": calling("add", "{a: 1"),
    "call of nothing": calling("subtract", "{}"),
}
REASONS = {
    "other model": "wrong_model",
    "no choices": "external_endpoint_error",
    "cut": "truncated",
    "withheld": "content_filter",
    "refused": "refusal",
    "empty": "empty_answer",
    "call without json": "invalid_tool_calls",
    "call of nothing": "invalid_tool_calls",
    "html": "external_endpoint_error",
    "broken": "external_endpoint_error",
    "bad request": "external_endpoint_error",
    "hang": "external_endpoint_error",
    "limited for ever": "external_endpoint_error",
}


class Cloud:
    """A service of others; the last message chooses what goes wrong."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        question = (await request.json())["messages"][-1]["content"]
        self.keys.add(request.headers["authorization"])
        self.asked[question] += 1
        busy = JSONResponse({"error": {"message": "busy"}}, 429, headers={"retry-after": "0"})
        match question:
            case "limited" if self.asked[question] < 3:
                return busy
            case "limited for ever":
                return busy
            case "hang":
                await asyncio.sleep(30)
            case "html":
                return HTMLResponse("<h1>Welcome</h1>")
            case "broken":
                return Response("Internal error", 500)
            case "bad request":
                return JSONResponse({"error": {"message": "No such model."}}, 404)
        return JSONResponse(ANSWERS.get(question, ANSWERS["well"]))


@pytest.fixture
def cloud(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An endpoint that the workers know, with short pauses."""
    monkeypatch.setattr(external, "FIRST_PAUSE_SECONDS", 0.001)
    cloud, path = Cloud(), workshop.folder / "endpoints.toml"
    settings = type(workshop).settings
    monkeypatch.setattr(
        type(workshop),
        "settings",
        lambda self, worker_id="w": settings(self, worker_id).model_copy(
            update={"endpoints_file": path}
        ),
    )
    with serve(cloud.app) as url:
        lines = ["[[endpoints]]", 'name = "cloud"', f'base_url = "{url}/v1"', 'api_key = "own"']
        path.write_text("\n".join([*lines, "timeout_seconds = 0.5"]))
        yield cloud


def test_each_fault_is_a_reason_and_the_others_are_trained_on(
    workshop: Workshop, cloud: Cloud
) -> None:
    questions = ["well", "limited", "call", *REASONS]
    id_ = create(
        workshop,
        asked(*questions),
        teacher=TEACHER,
        max_failed_share=0.9,
        params={"tools": [TOOL]},
    )
    assert attempt_until(workshop, None) is None
    row = row_of(workshop, id_)
    assert (row.status, row.kept, row.failed) == ("training", 3, len(REASONS)), row.error
    assert row.reasons == dict(Counter(REASONS.values()))
    found = dict(zip(questions, prompts_of(workshop, id_), strict=True))
    for question, code in REASONS.items():
        (candidate,) = found[question].candidates
        assert candidate.reason is not None and candidate.reason.code == code, question
    assert found["cut"].candidates[0].message == {"role": "assistant", "content": "The answer is"}
    assert "Retry" not in str(found["limited"].why) and cloud.asked["limited"] == 3
    assert cloud.keys == {"Bearer own"} and cloud.asked["bad request"] == 1
    assert len(jobs_of(workshop)) == 1


def test_a_dead_endpoint_is_not_asked_for_every_prompt(workshop: Workshop, cloud: Cloud) -> None:
    questions = [f"bad {number}" for number in range(2000)]
    for question in questions:
        ANSWERS[question] = {"error": "out of order"}
    id_ = create(workshop, asked(*questions), teacher=TEACHER, max_failed_share=0.01)
    assert attempt_until(workshop, None) is None
    row = row_of(workshop, id_)
    assert (row.status, row.error and row.error["code"]) == ("failed", "too_many_failures")
    assert row.error and "is no answer of /v1/chat/completions" in row.error["message"]
    assert 20 < cloud.asked.total() < 500, "asked after the distillation could not succeed"
    assert jobs_of(workshop) == []
    for question in questions:
        del ANSWERS[question]
