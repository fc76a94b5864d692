"""The speed test: what it asks of the engine, what it stores, and who makes it run."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import func, select

from api.generation.engine_client import EngineClient
from api.models.service import Target
from api.speed.measure import COMPLETION_TOKENS, LEVELS, PROMPT_TOKENS, measure
from core.errors import Unavailable
from core.records.tables import SpeedTest
from core.spec.generation import TokenPrompt
from core.spec.run import BaseModelSpec
from core.spec.serving import ServingSpec
from tests.api import as_worker
from tests.api.live import Api, serve
from tests.api.scripted_engine import ScriptedEngine

BASE = "/v1/models/tunesmith/tiny/speed"
ASKED = 1 + sum(LEVELS)
"""Requests of one test: the first has the model loaded."""


@pytest.fixture
def tuned(api: Api, create_job: Callable[..., str]) -> str:
    create_job()
    return as_worker.succeed(api, as_worker.start(api))


def rows(api: Api) -> int:
    with api.database.reading() as session:
        return session.scalar(select(func.count()).select_from(SpeedTest)) or 0


def test_each_level_is_measured_with_prompts_that_no_cache_knows(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    answer = client.get(BASE).json()
    assert [level["requests"] for level in answer["levels"]] == list(LEVELS) == [1, 8, 32]
    for level in answer["levels"]:
        assert 0 < level["first_token_seconds"]["median"] <= level["first_token_seconds"]["max"]
        assert level["tokens_per_second"] > 0
    assert (answer["model"], answer["hardware"]) == ("tunesmith/tiny", "paper, fp32")
    assert answer["serving"] == {"form": "base", "quantisation": None}
    assert answer["is_complete"] is True
    assert len(engine.requests) == ASKED
    prompts = [each.prompt for each in engine.requests]
    assert all(isinstance(each, TokenPrompt) for each in prompts)
    assert len({each.tokens[:16] for each in prompts if isinstance(each, TokenPrompt)}) == ASKED
    for each in engine.requests:
        assert isinstance(each.prompt, TokenPrompt) and len(each.prompt.tokens) == PROMPT_TOKENS
        assert (each.sampling.max_tokens, each.sampling.ignore_eos) == (COMPLETION_TOKENS, True)


def test_answer_is_as_our_own_description_says(api: Api, client: httpx.Client) -> None:
    description = api.app.openapi()
    path = description["paths"]["/v1/models/{model}/speed"]["get"]
    schema = path["responses"]["200"]["content"]["application/json"]["schema"]
    whole = schema | {"components": description["components"]}
    Draft202012Validator(whole).validate(client.get(BASE).json())


def test_result_is_stored_until_it_is_asked_for_anew(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    first = client.get(BASE).json()
    assert client.get(f"/v1/models/{quote('tunesmith/tiny', safe='')}/speed").json() == first
    assert len(engine.requests) == ASKED
    client.get(f"{BASE}?refresh=true")
    assert (len(engine.requests), rows(api)) == (2 * ASKED, 1)


def test_another_form_is_measured_by_itself(
    client: httpx.Client, engine: ScriptedEngine, tuned: str
) -> None:
    path = f"/v1/models/{tuned}"
    assert client.get(f"{path}/speed").json()["serving"]["form"] == "adapter"
    merged = {"form": "merged", "quantisation": "int8"}
    client.post(f"{path}/serving", json=merged)
    assert client.get(f"{path}/speed").json()["serving"] == merged
    assert len(engine.requests) == 2 * ASKED
    assert engine.requests[-1].serving == ServingSpec(form="merged", quantisation="int8")
    assert engine.requests[-1].adapter is not None


def test_two_at_once_share_one_run(api: Api, client: httpx.Client, engine: ScriptedEngine) -> None:
    engine.seconds_before_tokens = 0.3
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(client.get, [f"{BASE}?refresh=true"] * 2)
    assert first.json() == second.json()
    assert (len(engine.requests), rows(api)) == (ASKED, 1)


def test_who_leaves_stops_it_unless_somebody_else_waits(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    engine.on_tokens = "think for ever"
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{api.url}{BASE}", timeout=0.5, trust_env=False)
    assert engine.was_left.wait(60)

    engine.reset()
    engine.seconds_before_tokens = 0.5
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(client.get, BASE)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{api.url}{BASE}", timeout=0.6, trust_env=False)
        assert stays.result().status_code == 200
    assert len(engine.requests) == ASKED


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [("be a classifier", 400, "not_a_generator"), ("be full", 429, "rate_limit_exceeded")],
)
def test_a_refusal_of_the_engine_is_the_answer(
    api: Api, client: httpx.Client, engine: ScriptedEngine, behaviour: str, status: int, code: str
) -> None:
    engine.on_tokens = behaviour
    answer = client.get(BASE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert rows(api) == 0
    engine.reset()
    assert client.get(BASE).status_code == 200


def test_a_model_that_is_deleted_meanwhile_leaves_nothing(
    api: Api, client: httpx.Client, engine: ScriptedEngine, tuned: str
) -> None:
    engine.seconds_before_tokens = 0.3
    with ThreadPoolExecutor(1) as pool:
        measured = pool.submit(client.get, f"/v1/models/{tuned}/speed")
        assert client.delete(f"/v1/models/{tuned}").status_code == 200
        answer = measured.result()
    assert (answer.status_code, rows(api)) == (404, 0)


def test_a_deleted_model_takes_its_result_along(
    api: Api, client: httpx.Client, engine: ScriptedEngine, tuned: str
) -> None:
    assert client.get(f"/v1/models/{tuned}/speed").status_code == 200
    assert rows(api) == 1
    client.delete(f"/v1/models/{tuned}")
    assert rows(api) == 0


def test_unknown_models_and_values_are_refused(client: httpx.Client) -> None:
    for name in ("tunesmith/none", "ft:tunesmith/tiny:default::abcdefgh", "a/b/c/d"):
        answer = client.get(f"/v1/models/{name}/speed")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    answer = client.get(f"{BASE}?refresh=perhaps")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "refresh")


def test_time_runs_out_in_a_level_or_before_the_first_one_has_ended() -> None:
    engine = ScriptedEngine()
    target = Target("tiny", BaseModelSpec(id="tiny", source="/tiny"), None)

    async def measured(url: str, limit_seconds: float) -> Any:
        client = EngineClient()
        only = SimpleNamespace(generate=partial(client.generate, url))
        try:
            return await measure(only, target, "default", limit_seconds)
        finally:
            await client.close()

    with serve(engine.app) as url:
        engine.on_later_tokens = "think for ever"
        result = asyncio.run(measured(url, 2))
        assert [level.requests for level in result.levels] == [1]
        assert result.is_complete is False
        engine.reset()
        with pytest.raises(Unavailable) as caught:
            asyncio.run(measured(url, 0))
    assert caught.value.code == "speed_test_timed_out"
