"""The judges of a worker: models that were resolved before, through any engine that answers."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from core.grading.grade import Grade, grade
from core.grading.models import EMBEDDER
from core.grading.sample import sample_of_text
from core.inference.error_bodies import error_body
from core.records.database import Database
from core.records.engines import engine_seen
from core.sandbox.availability import availability
from core.sandbox.settings import SandboxSettings
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel, RefusedModel
from core.spec.engine_protocol import EngineReport
from core.spec.grader import (
    GraderMessage,
    PythonGrader,
    SamplingParams,
    ScoreModelGrader,
    TextSimilarityGrader,
)
from tests.api.live import serve
from tests.api.scripted_engine import EXACTLY, ScriptedEngine, vector_of
from worker.engine_client.any_engine import AnyEngine
from worker.judges import Models, WorkerJudges

JUDGE = BatchModel(id="judge", base=BaseModelSpec(id="judge", source="/judge"), adapter=None)


@pytest.fixture(scope="module")
def served() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    with serve(engine.app) as engine.url:
        yield engine


@pytest.fixture
def engine(served: ScriptedEngine) -> ScriptedEngine:
    served.reset()
    return served


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.close()


def found(database: Database, *urls: str) -> None:
    with database.writing() as session:
        for url in urls:
            engine_seen(session, EngineReport(url=url))


def judged(database: Database, models: Models, said: object) -> Grade:
    message = GraderMessage(role="user", content=f"{EXACTLY}{json.dumps(said)}")
    grader = ScoreModelGrader(
        name="score",
        model="any name",
        input=(message,),
        sampling_params=SamplingParams(seed=3, max_completions_tokens=20),
    )
    judges = WorkerJudges(models, "shop", AnyEngine(database, None))
    return asyncio.run(grade(grader, {}, sample_of_text(""), judges))


def test_model_answers_in_the_background(engine: ScriptedEngine, database: Database) -> None:
    found(database, engine.url)
    result = judged(database, {"any name": JUDGE}, {"result": 0.5})
    assert (result.score, result.sampled_model) == (0.5, "judge")
    [asked] = engine.requests
    assert asked.background and asked.project == "shop"
    assert (asked.base, asked.sampling.seed, asked.sampling.max_tokens) == (JUDGE.base, 3, 20)


@pytest.mark.parametrize("first", ["http://127.0.0.1:9", None])
def test_next_engine_answers_if_one_is_gone(
    engine: ScriptedEngine, database: Database, first: str | None
) -> None:
    found(database, *([first] if first else []), engine.url)
    assert judged(database, {"any name": JUDGE}, {"result": 1}).score == 1.0
    similar = TextSimilarityGrader(
        name="near", input="a b", reference="c", evaluation_metric="cosine"
    )
    judges = WorkerJudges({EMBEDDER: JUDGE}, "shop", AnyEngine(database, None))
    result = asyncio.run(grade(similar, {}, sample_of_text(""), judges))
    ours, theirs = vector_of("a b"), vector_of("c")
    product = sum(a * b for a, b in zip(ours, theirs, strict=True))
    lengths = (sum(a * a for a in ours) * sum(b * b for b in theirs)) ** 0.5
    assert result.score == pytest.approx(product / lengths, abs=1e-6)
    assert all(each.background for each in engine.embedded)


@pytest.mark.parametrize("mood", ["full", "stopping", None])
def test_outage_is_raised(engine: ScriptedEngine, database: Database, mood: Any) -> None:
    """The task asks again later."""
    if mood is not None:
        engine.mood = mood
        found(database, engine.url)
    with pytest.raises(Unavailable):
        judged(database, {"any name": JUDGE}, {"result": 1})


@pytest.mark.parametrize("status", [404, 409])
def test_model_that_could_not_answer_is_an_error_of_the_grader(
    database: Database, status: int
) -> None:
    body = error_body(status, "The model is gone.", param="model", code="model_gone")
    refused = RefusedModel(status=status, body=body)
    result = judged(database, {"any name": refused}, None)
    assert result.errors["model_grader_server_error"] is True
    assert "The model is gone." in str(result.errors["details"])


def test_error_keeps_its_class_and_its_code(database: Database) -> None:
    kinds = {400: InvalidRequest, 404: NotFound, 409: Conflict, 429: Unavailable, 503: Unavailable}
    for status, kind in kinds.items():
        body = error_body(status, "No.", param="model", code="some_code")
        models = {"x": RefusedModel(status=status, body=body)}
        judges = WorkerJudges(models, "shop", AnyEngine(database, None))
        with pytest.raises(kind, match="No") as caught:
            asyncio.run(judges.complete({"model": "x", "messages": []}))
        assert (caught.value.code, caught.value.param) == ("some_code", "model")


def test_name_that_nobody_resolved_is_an_error(database: Database) -> None:
    result = judged(database, {}, None)
    assert "was not resolved" in str(result.errors["details"])


@pytest.mark.skipif(availability().kind is None, reason="this machine allows no sandbox")
def test_python_runs_in_the_sandbox(database: Database) -> None:
    source = "def grade(sample, item):\n    return item['x'] if sample['output_text'] else 0\n"
    judges = WorkerJudges({}, "shop", AnyEngine(database, None))
    result = asyncio.run(
        grade(PythonGrader(source=source), {"x": 0.5}, sample_of_text("a"), judges)
    )
    assert (result.score, result.errors) == (0.5, {})


@pytest.mark.skipif(availability().kind is None, reason="this machine allows no sandbox")
def test_python_has_the_limits_of_the_settings(database: Database) -> None:
    endless = PythonGrader(source="def grade(sample, item):\n    while True:\n        pass\n")
    limits = SandboxSettings(grader_seconds=0.5).grader_limits
    judges = WorkerJudges({}, "shop", AnyEngine(database, None), limits)
    result = asyncio.run(grade(endless, {}, sample_of_text("a"), judges))
    assert "time limit of 0.5 seconds" in str(result.errors["details"])
