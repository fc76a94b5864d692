"""Scores the model of a trial by the grader of its sweep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from core.inference.targets import Target
from core.sandbox.limits import LIMITS, Limits
from core.spec.grader import Grader
from core.spec.held_out import Question
from core.spec.ids import ProjectId
from core.spec.job import JobSpec
from core.verdict.metrics import Scored
from core.verdict.scoring import graded
from worker.answering.background import Background, background_of
from worker.answering.models import NamedModels
from worker.context import Worker
from worker.coroutines import run_unless, wait_for_all
from worker.judges import WorkerJudges
from worker.verdict.asking import Asking

LEAST_SHARE = 0.5
"""Of the questions that need a score: the mean of a few survivors would win against whole ones."""


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

    background: Callable[[], Background]
    """Returns the engines for one model."""
    should_stop: Callable[[], bool]
    grader_limits: Limits = LIMITS

    def __call__(self, model: TrialModel) -> float | None:
        """Return the mean score of the answers; None if fewer than half of them have one.

        Waits as long as no engine or judge is available. Raises Interrupted.
        """
        return run_unless(self.should_stop, self._mean(model))

    async def _mean(self, model: TrialModel) -> float | None:
        spec, background = model.spec, self.background()
        asking = Asking(background, model.project, spec.chat_template_kwargs)
        models = NamedModels(spec.grader_models, model.project, background)
        judges = WorkerJudges(models, self.grader_limits)

        async def score(question: Question) -> float | None:
            answer = Scored(await asking.ask(model.target, question))
            found = await graded(question, answer, (model.grader,), judges)
            return found.values.get(model.grader.name)

        scores = await background.during(wait_for_all([score(each) for each in model.questions]))
        having = [score for score in scores if score is not None]
        return fmean(having) if having and len(having) >= LEAST_SHARE * len(scores) else None


def trial_score(worker: Worker, should_stop: Callable[[], bool]) -> TrialScore:
    """Return what asks the engines of a worker."""
    database, key = worker.database, worker.settings.engine_key
    limits = worker.settings.grader_limits
    return TrialScore(lambda: background_of(database, key), should_stop, limits)
