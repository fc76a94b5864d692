"""The speed test: what it asks of the engine, what it stores, and who makes it run.

A light worker of this process runs what the API asks for.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import func, select

from core.errors import Unavailable
from core.records.engines import forget_dead_engines
from core.records.owned import get_owned
from core.records.tables import Task, TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.generation import TokenPrompt
from core.spec.serving import ServingSpec
from core.spec.speed import SpeedResult, SpeedTarget
from core.tasks.kinds import Queue
from tests.api import as_worker
from tests.api.light_worker import light_worker_of
from tests.api.live import Api, register, serve
from tests.api.scripted_engine import Mood, ScriptedEngine
from worker.context import Worker
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress
from worker.tasks.desk import TaskDesk
from worker.tasks.speed_test import COMPLETION_TOKENS, LEVELS, PROMPT_TOKENS, measure

BASE = "/v1/models/tunesmith/tiny/speed"
ASKED = 1 + sum(LEVELS)
"""Requests of one test: the first has the model loaded."""


@pytest.fixture
def tuned(api: Api, create_job: Callable[..., str]) -> str:
    create_job()
    return as_worker.succeed(api, as_worker.start(api))


@pytest.fixture(autouse=True)
def light_worker(api: Api) -> Iterator[Worker]:
    with light_worker_of(api) as worker:
        yield worker


def rows(api: Api) -> int:
    """How many results are kept."""
    with api.database.reading() as session:
        kept = select(func.count()).where(Task.finished_at.is_not(None), Task.error.is_(None))
        return session.scalar(kept) or 0


def test_each_level_is_measured_with_prompts_that_no_cache_knows(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    answer = client.get(BASE).json()
    assert [level["requests"] for level in answer["levels"]] == list(LEVELS) == [1, 8, 32]
    for level in answer["levels"]:
        assert 0 < level["first_token_seconds"]["median"] <= level["first_token_seconds"]["max"]
        assert level["tokens_per_second"] > 0
    assert (answer["model"], answer["hardware"]) == ("tunesmith/tiny", "paper, fp32")
    assert answer["serving"] == {"form": "base", "quantization": None}
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
    anew = client.get(f"{BASE}?refresh=true").json()
    assert len(engine.requests) == 2 * ASKED
    assert client.get(BASE).json() == anew
    client.get(f"{BASE}?refresh=true")
    assert rows(api) == 2  # the newest, and the one before it


def test_another_form_is_measured_by_itself(
    client: httpx.Client, engine: ScriptedEngine, tuned: str
) -> None:
    path = f"/v1/models/{tuned}"
    assert client.get(f"{path}/speed").json()["serving"]["form"] == "adapter"
    merged = {"form": "merged", "quantization": "int8"}
    client.post(f"{path}/serving", json=merged)
    assert client.get(f"{path}/speed").json()["serving"] == merged
    assert len(engine.requests) == 2 * ASKED
    assert engine.requests[-1].serving == ServingSpec(form="merged", quantization="int8")
    assert engine.requests[-1].adapter is not None


def test_two_at_once_share_one_run(api: Api, client: httpx.Client, engine: ScriptedEngine) -> None:
    engine.seconds_before_tokens = 0.3
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(client.get, [f"{BASE}?refresh=true"] * 2)
    assert first.json() == second.json()
    assert (len(engine.requests), rows(api)) == (ASKED, 1)


def test_it_goes_on_without_the_one_who_asked(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    engine.seconds_before_tokens = 0.5
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{api.url}{BASE}", timeout=0.3, trust_env=False)
    assert client.get(BASE).status_code == 200
    assert len(engine.requests) == ASKED


def test_stopping_worker_gives_it_back_and_another_one_measures(
    api: Api, client: httpx.Client, engine: ScriptedEngine, light_worker: Worker
) -> None:
    engine.on_tokens = "think for ever"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get, BASE)
        while not engine.requests:
            time.sleep(0.01)
        light_worker.stopping.set()
        assert engine.was_left.wait(60)
        engine.reset()
        another = replace(light_worker, stopping=threading.Event())
        while not TaskDesk(another, Queue.LIGHT).run_next():
            time.sleep(0.01)
        assert asked.result().status_code == 200
    assert len(engine.requests) == ASKED


def test_request_that_waits_too_long_says_that_the_test_goes_on(
    client: httpx.Client, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.speed.service.WAIT_SECONDS", 0.1)
    engine.seconds_before_tokens = 1
    answer = client.get(BASE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "speed_test_pending")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("behavior", "status", "code"),
    [("be a classifier", 400, "not_a_generator"), ("be full", 429, "rate_limit_exceeded")],
)
def test_a_refusal_of_the_engine_is_the_answer(
    api: Api, client: httpx.Client, engine: ScriptedEngine, behavior: str, status: int, code: str
) -> None:
    engine.on_tokens = behavior
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
        while not engine.requests:
            time.sleep(0.01)
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


def test_an_engine_of_another_kind_is_passed_over(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    other = ScriptedEngine()
    other.mood = "unfit"
    with serve(other.app) as url:
        register(api, url, bases=[api.state.catalog.resolve("tunesmith/tiny")])
        assert client.get(BASE).status_code == 200
    assert (len(other.requests), len(engine.requests)) == (1, ASKED)


def test_model_is_measured_where_the_api_sends_its_requests(
    api: Api, client: httpx.Client, engine: ScriptedEngine, tuned: str
) -> None:
    with api.database.reading() as session:
        sha256 = get_owned(session, TunedModel, "default", tuned).bundle_sha256
    base = api.state.catalog.resolve("tunesmith/tiny")
    other = ScriptedEngine()
    with serve(other.app) as url:
        register(api, engine.url, bases=[base], max_running=8)
        register(api, url, bases=[base], bundles=[sha256], running=7, max_running=8)
        assert client.get(f"/v1/models/{tuned}/speed").status_code == 200
    assert (len(other.requests), len(engine.requests)) == (ASKED, 0)


@pytest.mark.parametrize("mood", ["breaking", "breaking later"])
def test_model_that_breaks_engines_is_not_measured_on_all_of_them(
    api: Api, client: httpx.Client, engine: ScriptedEngine, mood: Mood
) -> None:
    second, third = ScriptedEngine(), ScriptedEngine()
    engine.mood = second.mood = mood
    with serve(second.app) as second_url, serve(third.app) as third_url:
        for load, url in enumerate((engine.url, second_url, third_url)):
            register(api, url, running=load, max_running=8)
        answer = client.get(BASE)
    engine.mood = "well"
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert [len(each.requests) for each in (engine, second, third)] == [1, 1, 0]


def test_without_an_engine_the_answer_is_503(api: Api, client: httpx.Client) -> None:
    with api.database.writing() as session:
        forget_dead_engines(session, after_seconds=-7200)
    answer = client.get(BASE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")


def test_time_runs_out_in_a_level_or_before_the_first_one_has_ended() -> None:
    engine = ScriptedEngine()
    target = SpeedTarget(
        base=BaseModelSpec(id="tiny", source="/tiny"), adapter=None, serving=ServingSpec()
    )

    async def measured(url: str, limit_seconds: float) -> SpeedResult:
        async with OneEngineClient(EngineAddress(url)) as client:
            return await measure(client, target, "default", "paper", limit_seconds)

    with serve(engine.app) as url:
        engine.on_later_tokens = "think for ever"
        engine.requests.append(None)  # type: ignore[arg-type]  (the request that warms up)
        result = asyncio.run(measured(url, 2))
        assert [level.requests for level in result.levels] == [1]
        assert result.is_complete is False
        engine.reset()
        with pytest.raises(Unavailable) as caught:
            asyncio.run(measured(url, 0))
    assert caught.value.code == "speed_test_timed_out"
