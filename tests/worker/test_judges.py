"""The judges of a worker: models that were resolved before, through any engine that answers."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from core.grading.grade import Grade, grade
from core.grading.models import EMBEDDER
from core.grading.sample import sample_of_text
from core.inference.error_bodies import error_body
from core.records.database import Database
from core.records.engines import engine_seen
from core.sandbox.availability import availability
from core.sandbox.limits import LIMITS, Limits
from core.sandbox.settings import SandboxSettings
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel, RefusedModel
from core.spec.engine_protocol import EngineReport
from core.spec.grader import (
    GraderMessage,
    PythonGrader,
    PythonOutcome,
    SamplingParams,
    ScoreModelGrader,
    TextSimilarityGrader,
)
from tests.api.live import serve
from tests.api.scripted_engine import EXACTLY, ScriptedEngine, vector_of
from worker import judges as own
from worker.answering.background import background_of
from worker.answering.models import Models, NamedModels
from worker.judges import WorkerJudges

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


Answer = TypeVar("Answer")


def with_judges(
    database: Database,
    models: Models,
    work: Callable[[WorkerJudges], Awaitable[Answer]],
    limits: Limits = LIMITS,
) -> Answer:
    """Return what `work` returns. Engines that take no request are left after a moment."""

    async def run() -> Answer:
        background = background_of(database, None, patience_seconds=0.2)
        judges = WorkerJudges(NamedModels(models, "shop", background), limits)
        return await background.during(work(judges))

    return asyncio.run(run())


def judged(database: Database, models: Models, said: object) -> Grade:
    message = GraderMessage(role="user", content=f"{EXACTLY}{json.dumps(said)}")
    grader = ScoreModelGrader(
        name="score",
        model="any name",
        input=(message,),
        sampling_params=SamplingParams(seed=3, max_completions_tokens=20),
    )
    return with_judges(
        database, models, lambda judges: grade(grader, {}, sample_of_text(""), judges)
    )


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
    result = with_judges(
        database, {EMBEDDER: JUDGE}, lambda judges: grade(similar, {}, sample_of_text(""), judges)
    )
    ours, theirs = vector_of("a b"), vector_of("c")
    product = sum(a * b for a, b in zip(ours, theirs, strict=True))
    lengths = (sum(a * a for a in ours) * sum(b * b for b in theirs)) ** 0.5
    assert result.score == pytest.approx(product / lengths, abs=1e-6)
    assert all(each.background for each in engine.embedded)


@pytest.mark.parametrize("mood", ["full", "stopping", None])
def test_outage_is_raised_when_the_patience_ends(
    engine: ScriptedEngine, database: Database, mood: Any
) -> None:
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
        with pytest.raises(kind, match="No") as caught:
            with_judges(database, models, lambda each: each.complete({"model": "x"}))
        assert (caught.value.code, caught.value.param) == ("some_code", "model")


def test_name_that_nobody_resolved_is_an_error(database: Database) -> None:
    result = judged(database, {}, None)
    assert "was not resolved" in str(result.errors["details"])


@pytest.mark.skipif(availability().kind is None, reason="this machine allows no sandbox")
def test_python_runs_in_the_sandbox(database: Database) -> None:
    source = "def grade(sample, item):\n    return item['x'] if sample['output_text'] else 0\n"
    grader, item = PythonGrader(source=source), {"x": 0.5}
    result = with_judges(
        database, {}, lambda judges: grade(grader, item, sample_of_text("a"), judges)
    )
    assert (result.score, result.errors) == (0.5, {})


@pytest.mark.skipif(availability().kind is None, reason="this machine allows no sandbox")
def test_python_has_the_limits_of_the_settings(database: Database) -> None:
    endless = PythonGrader(source="def grade(sample, item):\n    while True:\n        pass\n")
    limits = SandboxSettings(grader_seconds=0.5).grader_limits
    result = with_judges(
        database, {}, lambda judges: grade(endless, {}, sample_of_text("a"), judges), limits
    )
    assert "time limit of 0.5 seconds" in str(result.errors["details"])


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_python_grader_waits_for_a_sandbox_that_has_no_room(
    database: Database, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "PAUSES_SECONDS", (0.01, 0.01))
    left = [Unavailable("Too many graders wait.", code="sandbox_unavailable")] * failures

    def run_grader(
        source: str, sample: Mapping[str, Any], item: Mapping[str, Any], limits: Limits
    ) -> PythonOutcome:
        if left:
            raise left.pop()
        return PythonOutcome(score=1.0)

    monkeypatch.setattr(own, "run_grader", run_grader)
    if failures <= 2:
        assert with_judges(database, {}, lambda each: each.run_python("", {}, {})).score == 1.0
    else:
        with pytest.raises(Unavailable):
            with_judges(database, {}, lambda each: each.run_python("", {}, {}))
