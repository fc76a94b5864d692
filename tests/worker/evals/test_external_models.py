"""Models of external endpoints in a run: they answer, judge, and fail."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.spec.evals import ExternalModel
from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine
from tests.worker.evals.runs import (
    EXACT,
    MODELS,
    asked,
    attempt_until,
    create,
    items_of,
    run_of,
    sampling,
)
from tests.worker.workshop import Workshop


def external_models(workshop: Workshop, url: str) -> dict[str, Any]:
    """Register an endpoint with the workers of a workshop; return its model under a name."""
    path = workshop.folder / "endpoints.toml"
    path.write_text(f'[[endpoints]]\nname = "cloud"\nbase_url = "{url}/v1"\n')
    model = ExternalModel(endpoint="cloud", model="gpt-x")
    return {**MODELS, "cloud/gpt-x": model}


class Cloud:
    """A service of others, which is busy at first."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if len(self.bodies) == 1:
            return JSONResponse({"error": {"message": "busy"}}, 429, headers={"retry-after": "0"})
        asks_score = "response_format" in body
        text = '{"steps": [], "result": 1.0}' if asks_score else "4"
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        usage["prompt_tokens_details"] = {"cached_tokens": 4}  # type: ignore[assignment]
        return JSONResponse({"model": "gpt-x-1", "choices": [choice], "usage": usage})


def test_external_model_answers_and_judges(
    workshop: Workshop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = Cloud()
    judge = {
        "type": "score_model",
        "name": "judge",
        "model": "cloud/gpt-x",
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }
    exact = {**EXACT, "reference": "4"}
    with serve(cloud.app) as url:
        models = external_models(workshop, url)
        settings = type(workshop).settings
        monkeypatch.setattr(
            type(workshop),
            "settings",
            lambda self, worker_id="w": settings(self, worker_id).model_copy(
                update={"endpoints_file": workshop.folder / "endpoints.toml"}
            ),
        )
        run_id = create(
            workshop,
            asked("2 + 2?"),
            exact,
            judge,
            sampled=sampling(model="cloud/gpt-x"),
            models=models,
        )
        assert attempt_until(workshop, None) is None
    assert [item.status for item in items_of(workshop, run_id)] == ["pass"]
    assert [body["model"] for body in cloud.bodies] == ["gpt-x"] * 3  # asked again once
    assert engine.requests == []
    [usage] = run_of(workshop, run_id).usage
    assert (usage["model_name"], usage["invocation_count"], usage["cached_tokens"]) == (
        "gpt-x-1",
        2,
        8,
    )


def test_endpoint_that_workers_do_not_know_is_an_error_of_the_items(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    model = ExternalModel(endpoint="cloud", model="gpt-x")
    run_id = create(
        workshop, asked("hi"), sampled=sampling(model="cloud/x"), models={"cloud/x": model}
    )
    assert attempt_until(workshop, None) is None
    [item] = items_of(workshop, run_id)
    assert item.body["sample"]["error"]["code"] == "external_endpoint_error"
