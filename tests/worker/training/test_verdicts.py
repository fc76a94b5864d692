"""The verdict on a model between its run and its publication, by a scripted engine."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidRequest, StaleClaim, Unavailable
from core.inference.targets import find_target
from core.jobs.state import JobStatus
from core.records import models, verdicts
from core.records.owned import get_owned
from core.records.parity import publish
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import TunedModel
from core.spec.bundle import BundleRef
from core.spec.classification import ClassificationAnswer
from core.spec.generation import (
    AnswerEvent,
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
)
from core.spec.held_out import Figures, HeldOutFacts, Question
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.parity import Parity
from core.spec.strategy import FullSpec, LoraSpec
from core.spec.training import EvaluationSpec
from core.spec.verdict import Verdict
from tests.worker.answering.in_memory import background_at
from tests.worker.training.recording import VALIDATED, checkpoint, finished, recording
from tests.worker.workshop import TINY, Workshop
from worker.answering import fleet
from worker.verdict.verdict import VerdictCheck

QUESTIONS = tuple(
    Question(
        line=line,
        messages=({"role": "user", "content": f"{line}?"},),
        reference="right",
        max_tokens=20,
    )
    for line in range(1, 9)
)
FACTS = HeldOutFacts(
    rows=8,
    source="split",
    base=Figures(loss=2.0, accuracy=0.2),
    tuned=Figures(loss=1.0, accuracy=0.6),
    questions=QUESTIONS,
)


PASSED = Parity(status="passed", max_difference_nats=1e-6, max_allowed_nats=1e-3)


class Engine:
    """Adapters answer "right", bases "wrong". `fails` may raise for a request."""

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []
        self.fails: Callable[[GenerationRequest], None] = lambda request: None
        self.silent = False
        self.labels: dict[str, float] = {}

    async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        self.requests.append(request)
        self.fails(request)
        if self.silent:
            await asyncio.sleep(3600)
        yield GenerationStarted(prompt_tokens=1)
        text = "wrong" if request.adapter is None else "right"
        yield GenerationDelta(choice=0, text=text)
        yield ChoiceFinished(choice=0, finish_reason="stop", completion_tokens=1)

    async def ask(self, call: Any, request: Any) -> Any:
        assert request.adapter is not None, "a base has no labels"
        return ClassificationAnswer(scores=(self.labels,))


@pytest.fixture
def engine() -> Engine:
    return Engine()


Judge = Callable[..., Verdict]


@pytest.fixture
def judged(workshop: Workshop, engine: Engine, make_bundle: Callable[[str], Path]) -> Judge:
    """Publish a model with a verdict, and return this."""

    def run(
        facts: HeldOutFacts = FACTS,
        *,
        seconds: float = 60,
        patience_seconds: float = 30,
        has_engine: bool = True,
        parity: Parity | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        continued: TunedModel | None = None,
        **spec: Any,
    ) -> Verdict:
        job = JobSpec(**({"base": TINY, "strategy": LoraSpec(rank=2), "seed": 1} | spec))
        requested = "tiny"
        if continued is not None:
            parent = BundleRef(key=continued.bundle_key, sha256=continued.bundle_sha256)
            job, requested = job.model_copy(update={"parent": parent}), continued.id
        job_id = workshop.create(job, workshop.upload("{}\n"), requested)
        check = VerdictCheck(
            lambda: background_at(engine, patience_seconds=patience_seconds),
            lambda target: has_engine,
            should_stop,
            seconds,
        )
        found = parity or PASSED
        recorder = recording(workshop, lambda *_: found, check)
        recorder.write(VALIDATED)
        recorder.write(checkpoint(3, make_bundle(f"{job_id}-3")))
        end = finished(make_bundle(f"{job_id}-final"))
        recorder.write(end.model_copy(update={"held_out": facts}))
        if not recorder.is_complete:
            raise RuntimeError("interrupted")
        return verdict_of(workshop, job_id)

    return run


def verdict_of(workshop: Workshop, job_id: str) -> Verdict:
    job = workshop.job(job_id)
    assert job.status == JobStatus.SUCCEEDED and job.fine_tuned_model is not None
    with workshop.database.reading() as session:
        stored = verdicts.find_verdict(session, DEFAULT_PROJECT, job.fine_tuned_model)
    assert stored is not None and stored.job_id == job_id
    return Verdict.model_validate(stored.verdict)


def newest(workshop: Workshop) -> str:
    with workshop.database.reading() as session:
        return models.list_models(session, DEFAULT_PROJECT)[0].job_id


def final_of(workshop: Workshop) -> TunedModel:
    with workshop.database.reading() as session:
        job = workshop.job(newest(workshop))
        assert job.fine_tuned_model is not None
        return get_owned(session, TunedModel, DEFAULT_PROJECT, job.fine_tuned_model)


def test_base_and_model_answer_greedily_in_the_background(
    judged: Judge, engine: Engine, workshop: Workshop
) -> None:
    found = judged(chat_template_kwargs={"enable_thinking": False})
    assert (found.status, found.compared_with, found.missing) == ("better", "tunesmith/tiny", ())
    assert [(each.name, each.base, each.tuned) for each in found.metrics] == [
        ("exact_match", 0, 1),
        ("rouge_l", 0, 1),
    ]
    assert [sample.line for sample in found.samples] == list(range(1, 9))
    assert len(engine.requests) == 16
    for request in engine.requests:
        assert request.background and request.project == DEFAULT_PROJECT
        assert (request.sampling.temperature, request.sampling.max_tokens) == (0, 20)
        assert request.prompt.template_kwargs == {"enable_thinking": False}  # type: ignore[union-attr]
    used = {request.adapter for request in engine.requests}
    assert {each is None for each in used} == {True, False}
    (event,) = [e for e in workshop.events(newest(workshop)) if e.message == found.sentence]
    assert event.level == "info" and event.data is not None
    assert event.data["status"] == "better" and "samples" not in event.data


def test_verdict_is_told_between_parity_and_the_model(judged: Judge, workshop: Workshop) -> None:
    found = judged()
    told = workshop.messages(newest(workshop))
    at = told.index(found.sentence)
    assert told[at - 1].startswith("Parity passed")
    assert told[at + 1].startswith("New fine-tuned model created")
    assert told[at + 2] == "The job has successfully completed"


def test_full_model_and_its_base_are_not_asked_in_turns(judged: Judge, engine: Engine) -> None:
    judged(strategy=FullSpec())
    adapters = [request.adapter is not None for request in engine.requests]
    assert adapters == sorted(adapters, reverse=True), "each is loaded once"


def test_job_that_continued_a_model_is_compared_with_it(
    judged: Judge, engine: Engine, workshop: Workshop
) -> None:
    judged()
    before = final_of(workshop)
    engine.requests.clear()
    found = judged(continued=before)
    assert (found.status, found.compared_with) == ("no_worse", before.id), "both answer alike"
    asked = {request.adapter.key for request in engine.requests if request.adapter is not None}
    assert before.bundle_key in asked and len(asked) == 2
    assert None not in {request.adapter for request in engine.requests}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"has_engine": False}, "no engine is registered"),
        ({"seconds": 0}, "TUNESMITH_VERDICT_SECONDS is 0"),
        (
            {"parity": Parity(status="failed", differs="template", reason="Other.")},
            "not served as trained",
        ),
    ],
)
def test_without_answers_the_losses_are_judged_and_the_reason_is_said(
    judged: Judge, engine: Engine, options: dict[str, Any], reason: str
) -> None:
    found = judged(**options)
    assert (found.status, found.metrics, engine.requests) == ("better", (), [])
    assert reason in found.missing[0]
    assert found.held_out.base is not None


def test_engine_that_does_not_answer_in_time_costs_the_answers_only(
    judged: Judge, engine: Engine
) -> None:
    engine.silent = True
    found = judged(seconds=0.2)
    assert found.metrics == () and found.samples == ()
    assert any("0.2 s (TUNESMITH_VERDICT_SECONDS)" in each for each in found.missing)
    assert any("8 of 8 held-out rows" in each for each in found.missing)


def test_engine_that_goes_away_is_left_after_a_while(judged: Judge, engine: Engine) -> None:
    def away(request: GenerationRequest) -> None:
        raise Unavailable("It is gone.", code="engine_unavailable")

    engine.fails = away
    found = judged(patience_seconds=0.1)
    assert any(each.startswith("The engine did not answer: It is gone.") for each in found.missing)


def test_full_engine_is_asked_again(
    judged: Judge, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fleet, "LONGEST_PAUSE_SECONDS", 0.01)
    refused: set[str] = set()

    def full_at_first(request: GenerationRequest) -> None:
        if len(refused) < 5:
            refused.add(request.id)
            raise Unavailable("Too many wait.", code="queue_full")

    engine.fails = full_at_first
    found = judged()
    assert (found.status, found.missing, len(refused)) == ("better", (), 5)


def test_row_that_the_engine_refuses_is_said_and_left_out(judged: Judge, engine: Engine) -> None:
    def too_long(request: GenerationRequest) -> None:
        if request.prompt.messages[0]["content"] == "3?":  # type: ignore[union-attr]
            raise InvalidRequest("The prompt is too long.", code="context_length_exceeded")

    engine.fails = too_long
    found = judged()
    assert [metric.rows for metric in found.metrics] == [7, 7]
    assert found.missing == ("2 requests were refused, the first one: The prompt is too long.",)


def test_answer_near_the_end_of_the_context_gets_the_room_that_is_left(
    judged: Judge, engine: Engine
) -> None:
    def no_room(request: GenerationRequest) -> None:
        if request.sampling.max_tokens is not None:
            raise InvalidRequest("It does not fit.", code="context_length_exceeded")

    engine.fails = no_room
    found = judged()
    assert (found.status, found.missing, len(engine.requests)) == ("better", (), 32)


def test_classifier_is_compared_with_the_most_frequent_label(judged: Judge, engine: Engine) -> None:
    engine.labels = {"cat": 0.1, "dog": 0.9}
    questions = tuple(Question(line=line, text="?", labels=("dog",)) for line in range(1, 9))
    facts = FACTS.model_copy(
        update={"questions": questions, "majority": ("cat",), "form": "labels", "base": None}
    )
    found = judged(
        facts, task="classification", objective=ClassificationSpec(labels=("cat", "dog"))
    )
    assert (found.status, found.compared_with) == ("better", "always cat")
    assert {metric.name for metric in found.metrics} == {"accuracy", "macro_f1"}
    assert found.confusion is not None and found.confusion.counts == ((8,),)
    assert found.samples[0].base.labels == ("cat",) and found.samples[0].tuned.labels == ("dog",)


def test_fixed_prompts_are_answered_by_base_checkpoints_and_model(
    judged: Judge, engine: Engine, workshop: Workshop
) -> None:
    prompts = ["Hello", [{"role": "system", "content": "Be short."},
                         {"role": "user", "content": "Hi"}]]  # fmt: skip
    facts = FACTS.model_copy(update={"questions": ()})
    found = judged(facts, evaluation=EvaluationSpec(prompts=prompts))
    model = final_of(workshop)
    assert [each.prompt if isinstance(each.prompt, str) else len(each.prompt)
            for each in found.prompts] == ["Hello", 2]  # fmt: skip
    for each in found.prompts:
        assert [(answer.model, answer.step, answer.answer.text) for answer in each.answers] == [
            ("tunesmith/tiny", None, "wrong"),
            (f"{model.id}:ckpt-step-3", 3, "right"),
            (model.id, None, "right"),
        ]
    assert engine.requests[0].prompt.messages == ({"role": "user", "content": "Hello"},)  # type: ignore[union-attr]


def test_unmet_requirement_withholds_the_model_until_it_is_published(
    judged: Judge, workshop: Workshop
) -> None:
    need = {"metric": "exact_match", "better_than_base_by": 1.5}
    found = judged(evaluation=EvaluationSpec(require=need))
    model = final_of(workshop)
    assert found.requirements[0].met is False
    assert model.unmet_requirements == found.unmet
    with workshop.database.reading() as session, pytest.raises(Exception) as refusal:
        find_target(session, None, DEFAULT_PROJECT, model.id)  # type: ignore[arg-type]
    assert getattr(refusal.value, "code", None) == "requirement_failed"
    assert "better by at least 1.5 is required" in str(refusal.value)
    (event,) = [e for e in workshop.events(model.job_id) if e.level == "error"]
    assert f"POST /v1/models/{model.id}/publish" in event.message
    with workshop.database.writing() as session:
        publish(session, DEFAULT_PROJECT, model.id)
    with workshop.database.reading() as session:
        assert find_target(session, None, DEFAULT_PROJECT, model.id).id == model.id  # type: ignore[arg-type]
    assert workshop.messages(model.job_id)[-1].endswith(
        "does not meet the requirements of its job."
    )


def test_met_requirement_and_unmeasured_requirement(judged: Judge, workshop: Workshop) -> None:
    judged(evaluation=EvaluationSpec(require={"metric": "rouge_l", "at_least": 0.9}))
    assert final_of(workshop).unmet_requirements is None
    need = EvaluationSpec(require={"metric": "rouge_l", "at_least": 0.9})
    judged(evaluation=need, has_engine=False)
    unmet = final_of(workshop).unmet_requirements
    assert unmet is not None and "could not be checked" in unmet and "no engine" in unmet


def test_error_of_the_service_costs_no_model(
    judged: Judge, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(request: GenerationRequest) -> None:
        raise ZeroDivisionError

    engine.fails = faulty
    found = judged()
    assert found.missing == ("The answers of the models could not be collected.",)
    assert [entry.levelname for entry in caplog.records if entry.exc_info] == ["ERROR"]


def test_worker_that_stops_meanwhile_leaves_nothing(
    judged: Judge, engine: Engine, workshop: Workshop
) -> None:
    engine.silent = True
    with pytest.raises(RuntimeError, match="interrupted"):
        judged(should_stop=lambda: bool(engine.requests))
    with workshop.database.reading() as session:
        found = models.list_models(session, DEFAULT_PROJECT)
    assert [model.checkpoint_step for model in found] == [3]
    assert not any(blob.endswith("final.zip") for blob in workshop.blobs("bundles"))


def test_claim_lost_meanwhile_leaves_nothing(
    judged: Judge, engine: Engine, workshop: Workshop
) -> None:
    def cancelled(request: GenerationRequest) -> None:
        if workshop.job(newest(workshop)).status == JobStatus.RUNNING:
            workshop.cancel(newest(workshop))

    engine.fails = cancelled
    with pytest.raises(StaleClaim):
        judged()
    assert not any(blob.endswith("final.zip") for blob in workshop.blobs("bundles"))


def test_verdict_is_deleted_with_its_model(judged: Judge, workshop: Workshop) -> None:
    judged()
    model = final_of(workshop)
    with workshop.database.writing() as session:
        assert verdicts.find_verdict(session, "another", model.id) is None
        models.delete_model(session, DEFAULT_PROJECT, model.id)
        assert verdicts.find_verdict(session, DEFAULT_PROJECT, model.id) is None
