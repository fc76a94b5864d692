"""A sweep in a real worker, with simulated children, and with a worker that dies at each write."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from core.jobs.state import FINAL
from core.records import claims
from core.records.jobs import NewJob
from core.records.projects import DEFAULT_PROJECT
from core.records.resume_states import newest_step, states_of
from core.records.trials import results_of
from core.spec.grader import StringCheckGrader
from core.spec.held_out import Question
from core.spec.job import JobSpec
from core.spec.run_request import RunRequest
from core.spec.sweep import HalvingSpec
from core.spec.training import EvaluationSpec, TrainingSpec
from core.storage.blobs import BlobStore
from tests.api.scripted_engine import EXACTLY
from tests.core.sweeps.sweeping import Sweeping, make_sweep
from tests.worker.quick_engine import quick_engine
from tests.worker.simulated_child import Simulation
from tests.worker.workshop import ROW, TINY, Workshop, wait_until, worker_here
from worker import housekeeping
from worker.context import Worker
from worker.training import attempt, publish, recorder, resume

FOUR = HalvingSpec(first_share=0.25, growth=2.0, finalists=1, last_share=None)
LOSSES = [2.0, 1.0, 4.0, 3.0]
STEPS = 16
GRADER = StringCheckGrader(
    name="exact", input="{{sample.output_text}}", reference="{{item.reference}}", operation="eq"
)
ALL_STEPS = [8, 16, 4, 4]
"""Of each trial: the best two reach the second rung, and one of these the end."""


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Simulation:
    simulation = Simulation(total_steps=STEPS)
    monkeypatch.setattr(attempt, "launch", simulation.launch)
    return simulation


@pytest.fixture
def sweeping(workshop: Workshop, children: Simulation) -> Sweeping:
    return created(workshop, children, LOSSES, FOUR)


def created(
    workshop: Workshop, children: Simulation, losses: list[float], halving: HalvingSpec
) -> Sweeping:
    file_id = workshop.upload("".join(ROW % number for number in range(8)))
    graders = () if halving.metric == "loss" else (GRADER,)
    template = NewJob(
        project_id=DEFAULT_PROJECT,
        requested_model="tiny",
        suffix=None,
        training_file=file_id,
        validation_file=None,
        spec=JobSpec(
            base=TINY,
            training=TrainingSpec(epochs=1),
            evaluation=EvaluationSpec(graders=graders),
            seed=1,
        ),
        metadata=None,
    )
    sweeping = make_sweep(workshop.database, template, losses, halving)
    children.loss_of = lambda request: losses[_number(sweeping, request)]
    if graders:
        children.questions_of = lambda request: questions(_number(sweeping, request))
    return sweeping


def questions(right: int) -> tuple[Question, ...]:
    """Four questions, to which the scripted engine gives as many right answers."""
    words = ["yes"] * right + ["no"] * (4 - right)
    return tuple(
        Question(line=line, text=f"{EXACTLY}{word}", reference="yes")
        for line, word in enumerate(words, 1)
    )


def _number(sweeping: Sweeping, request: RunRequest) -> int:
    job_id = request.workspace.folder.parent.name
    return [each.job.id for each in sweeping.trials].index(job_id)


def steps_told(workshop: Workshop, job_id: str) -> list[int]:
    events = [event.data for event in workshop.events(job_id) if event.type == "metrics"]
    return [data["step"] for data in events if data and "train_loss" in data]


def assert_won_by_the_best(workshop: Workshop, sweeping: Sweeping) -> None:
    trials = sweeping.trials
    assert sweeping.sweep.winner == trials[1].job.id
    assert [each.job.status for each in trials] == [
        "cancelled",
        "succeeded",
        "cancelled",
        "cancelled",
    ]
    assert trials[1].job.fine_tuned_model is not None
    for each, steps in zip(trials, ALL_STEPS, strict=True):
        told = steps_told(workshop, each.job.id)
        assert told == list(range(1, steps + 1)), "a step was trained twice, or never"
        assert max(Counter(result.share for result in results_of(each.trial)).values()) == 1


def test_worker_alone_runs_a_sweep_to_its_end(workshop: Workshop, sweeping: Sweeping) -> None:
    """Without housekeeping, and without a message after the first."""
    with worker_here(workshop):
        wait_until(lambda: sweeping.sweep.finished_at is not None, "the sweep ends")
    assert_won_by_the_best(workshop, sweeping)
    assert {each.job.attempts for each in sweeping.trials} <= {0, 1}


def test_states_of_losers_are_deleted_and_those_of_others_kept(
    workshop: Workshop, sweeping: Sweeping
) -> None:
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    for _ in range(4):
        assert attempt.train_next_job(worker)
    housekeeping.delete_resume_states(workshop.database, workshop.store)
    kept = {blob.split("/")[1] for blob in workshop.blobs("resume")}
    assert kept == {sweeping.job_id(0), sweeping.job_id(1)}


def test_grader_ranks_trials_once_an_engine_is_available(
    workshop: Workshop, children: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses would choose the first trial, whose answers are the worst."""
    halving = FOUR.model_copy(update={"metric": "exact"})
    sweeping = created(workshop, children, [1.0, 2.0, 3.0, 4.0], halving)
    with quick_engine(workshop, monkeypatch) as engine, worker_here(workshop):
        engine.mood = "stopping"
        wait_until(lambda: len(engine.requests) > 9, "questions are repeated")
        assert [each.trial.results for each in sweeping.trials] == [None] * 4
        engine.mood = "well"
        wait_until(lambda: sweeping.sweep.finished_at is not None, "the sweep ends")
    assert [each.trial.outcome for each in sweeping.trials] == ["lost", "lost", "lost", "won"]
    scores = [[result.score for result in results_of(each.trial)] for each in sweeping.trials]
    assert scores == [[0.0], [0.25], [0.5, 0.5], [0.75, 0.75, 0.75]]
    reason = sweeping.trials[2].trial.reason
    assert reason is not None and "number 2 of 2 with a score by 'exact' of 0.5000" in reason
    (kept,) = workshop.blobs("bundles")
    assert kept.endswith("final.zip")


class Killed(BaseException):
    """The worker is gone: no handler of errors runs."""


class Fate:
    """Kills a worker before or after one of its writes: the next one in each attempt."""

    def __init__(self) -> None:
        self.point = self.passed = self.kills = 0
        self.is_dead = False

    def begin(self) -> None:
        self.passed, self.is_dead = 0, False

    def around(self, commit: Callable[..., Any]) -> Callable[..., Any]:
        def committed(*arguments: Any) -> Any:
            self._pass()
            result = commit(*arguments)
            self._pass()
            return result

        return committed

    def _pass(self) -> None:
        if self.passed == self.point:
            self.kills += 1
            self.is_dead = True
            raise Killed
        self.passed += 1


class FatefulStore:
    """A store from which a dead worker deletes nothing: it has no handlers of errors."""

    def __init__(self, store: BlobStore, fate: Fate) -> None:
        self._store = store
        self._fate = fate

    def delete(self, key: str) -> None:
        if not self._fate.is_dead:
            self._store.delete(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("metric", ["loss", "exact"])
def test_worker_killed_before_or_after_any_write_trains_no_rung_twice(
    workshop: Workshop, children: Simulation, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    """A rung may be trained again until its state is stored, but not after that."""
    children.total_steps = 4
    halving = HalvingSpec(metric=metric, first_share=0.5, finalists=1, last_share=None)
    sweeping = created(workshop, children, [2.0, 1.0], halving)
    with quick_engine(workshop, monkeypatch):
        _kill_everywhere(workshop, sweeping, monkeypatch)
    assert [each.trial.outcome for each in sweeping.trials] == ["lost", "won"]
    assert all(each.job.status in FINAL for each in sweeping.trials)
    assert not any("rung" in blob for blob in workshop.blobs("bundles"))
    for each in sweeping.trials:
        shares = [result.share for result in results_of(each.trial)]
        assert shares == sorted(set(shares))
        assert all(
            (result.score is None) == (metric == "loss") for result in results_of(each.trial)
        )
        _assert_no_rung_again(workshop, each.job.id)


def _kill_everywhere(
    workshop: Workshop, sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a sweep to its end with workers that die at each of their writes."""
    fate = Fate()
    for module in (attempt, publish, recorder, resume):
        monkeypatch.setattr(module, "commit", fate.around(module.commit))
    monkeypatch.setattr(claims, "MAX_ATTEMPTS", 10**6)
    store = FatefulStore(workshop.store, fate)
    worker = Worker(workshop.settings(), workshop.database, store, threading.Event())
    saved: Counter[str] = Counter()
    while sweeping.sweep.finished_at is None:
        fate.begin()
        try:
            attempt.train_next_job(worker)
            fate.point = 0  # it has survived, so the next one is killed at its first write
        except Killed:
            fate.point += 1
        with workshop.database.writing() as session:
            claims.rescue_expired(session, worker_id="worker-here")
        housekeeping.move_sweeps_on(workshop.database)
        for each in sweeping.trials:
            step = newest_step(states_of(each.job)) or saved[each.job.id]
            assert step >= saved[each.job.id], "a state that was stored is lost"
            saved[each.job.id] = step
    assert fate.kills > 30


def _assert_no_rung_again(workshop: Workshop, job_id: str) -> None:
    """After the first step beyond the rung, no step before it is trained again."""
    told = steps_told(workshop, job_id)
    beyond = next((place for place, step in enumerate(told) if step > 2), len(told))
    assert all(step > 2 for step in told[beyond:])
