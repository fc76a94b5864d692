"""Scores the model of a trial by the grader of its sweep."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from core.errors import Unavailable
from core.inference.endpoints import Engine
from core.inference.targets import Target
from core.sandbox.limits import LIMITS, Limits
from core.spec.engine_protocol import kind_of
from core.spec.grader import Grader
from core.spec.held_out import Question
from core.spec.ids import ProjectId
from core.spec.job import JobSpec
from core.verdict.metrics import Scored
from core.verdict.scoring import graded
from worker.context import Worker
from worker.coroutines import run_unless, wait_for_all
from worker.engine_client.any_engine import AnyEngine
from worker.judges import WorkerJudges
from worker.verdict.asking import MAX_FAILURES, PAUSE_SECONDS, Asking, may_be_the_cause


@dataclass(frozen=True)
class TrialModel:
    """A model of a trial, what it is asked, and who scores the answers."""

    project: ProjectId
    spec: JobSpec
    grader: Grader
    target: Target
    questions: Sequence[Question]


@dataclass(frozen=True)
class TrialScore:
    """Scores models at the engines, until `should_stop` is true."""

    engine: Engine
    should_stop: Callable[[], bool]
    grader_limits: Limits = LIMITS

    def __call__(self, model: TrialModel) -> float | None:
        """Return the mean score of the answers; None if none has a score.

        Waits as long as no engine or judge is available. Raises Interrupted.
        """
        return run_unless(self.should_stop, self._mean(model))

    async def _mean(self, model: TrialModel) -> float | None:
        spec = model.spec
        asking = Asking(
            self.engine, model.project, spec.chat_template_kwargs, patience_seconds=math.inf
        )
        judges = WorkerJudges(spec.grader_models, model.project, self.engine, self.grader_limits)

        async def score(question: Question) -> float | None:
            answer = Scored(await asking.ask(model.target, question))
            return await _graded(question, answer, model.grader, judges)

        scores = await wait_for_all([score(question) for question in model.questions])
        having = [score for score in scores if score is not None]
        return fmean(having) if having else None


async def _graded(
    question: Question, answer: Scored, grader: Grader, judges: WorkerJudges
) -> float | None:
    """Return the score of an answer; None if it has none. Waits for judges that are away."""
    failures = 0
    while True:
        try:
            found = await graded(question, answer, (grader,), judges)
            return found.values.get(grader.name)
        except Unavailable as error:
            failures += may_be_the_cause(error)
            if kind_of(error).is_lasting or failures >= MAX_FAILURES:
                return None
        await asyncio.sleep(PAUSE_SECONDS)


def trial_score(worker: Worker, should_stop: Callable[[], bool]) -> TrialScore:
    """Return what asks the engines of a worker."""
    engine = AnyEngine(worker.database, worker.settings.engine_key)
    return TrialScore(engine, should_stop, worker.settings.grader_limits)
