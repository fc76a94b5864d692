"""Computes the verdict on a job's final model, before it is published.

docs/decisions/0038-verdict.md has the design, and what happens if no engine is available.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from core.inference.targets import Target
from core.sandbox.limits import LIMITS, Limits
from core.spec.parity import Parity
from core.spec.verdict import Verdict
from core.verdict.judge import Collected, judge
from worker.answering.background import Background, background_of
from worker.answering.models import NamedModels
from worker.context import Worker
from worker.coroutines import Interrupted, run_unless
from worker.engine_client.find import find_engine
from worker.judges import WorkerJudges
from worker.verdict.asking import Asking
from worker.verdict.collecting import Collecting
from worker.verdict.subject import Subject

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""The engines are left after this long without a turn at any."""


@dataclass(frozen=True)
class VerdictCheck:
    """Judges models at the engines, until `should_stop` is true."""

    background: Callable[[], Background]
    """Returns the engines for one verdict."""
    has_engine: Callable[[Target], bool]
    """Whether any engine is registered that may answer for a model."""
    should_stop: Callable[[], bool]
    seconds: float
    """The limit for all answers and their scores."""
    grader_limits: Limits = LIMITS

    def __call__(self, subject: Subject, parity: Parity) -> Verdict:
        """Return the verdict. Raises Interrupted; any other error is a part that is missing."""
        facts = subject.spec, subject.facts, subject.compared_with
        try:
            return judge(*facts, self._collected(subject, parity))
        except Interrupted:
            raise
        except Exception:
            logger.exception("The verdict on %s is incomplete.", subject.tuned.id)
            missing = "The answers of the models could not be collected."
            return judge(*facts, Collected(missing=[missing]))

    def _collected(self, subject: Subject, parity: Parity) -> Collected:
        if not subject.facts.questions and not subject.spec.evaluation.prompts:
            return Collected()
        if not self.seconds:
            reason = "The models were not asked, because TUNESMITH_VERDICT_SECONDS is 0."
            return Collected(missing=[reason])
        if parity.status == "failed":
            reason = "The models were not asked, because the tuned one is not served as trained."
            return Collected(missing=[reason])
        if not self.has_engine(subject.tuned):
            return Collected(missing=["The models were not asked: no engine is registered."])
        return run_unless(self.should_stop, self._collect(subject))

    async def _collect(self, subject: Subject) -> Collected:
        spec = subject.spec
        background = self.background()
        asking = Asking(background, subject.project, spec.chat_template_kwargs)
        models = NamedModels(spec.grader_models, subject.project, background)
        judges = WorkerJudges(models, self.grader_limits)
        return await Collecting(subject, asking, judges, self.seconds).run()


def verdict_check(worker: Worker, should_stop: Callable[[], bool]) -> VerdictCheck:
    """Return the check that asks the engines of a worker."""
    database, key = worker.database, worker.settings.engine_key

    def has_engine(target: Target) -> bool:
        return find_engine(database, target.base, target.adapter, key) is not None

    return VerdictCheck(
        lambda: background_of(database, key, PATIENCE_SECONDS),
        has_engine,
        should_stop,
        worker.settings.verdict_seconds,
        worker.settings.grader_limits,
    )
