"""Runs a comparison: every model answers the rows of a file, and the answers are scored.

Answers are stored while it runs, and an attempt continues where the last one stopped.
"""

import asyncio
import random
import threading
import time
from pathlib import Path

from core.datasets.read import read_examples
from core.errors import InvalidRequest
from core.inference.targets import Target
from core.records.comparisons import store_answers, stored_answers
from core.spec.comparison import (
    ComparedAnswer,
    ComparedItem,
    ComparisonProgress,
    ComparisonRequest,
    ComparisonResult,
)
from core.spec.held_out import Question
from core.spec.ids import ModelId
from core.verdict.comparison import compared_answer, comparison_of
from core.verdict.questions import question_of, short
from core.verdict.scoring import graded, scored
from worker.answering.background import background_of
from worker.answering.models import NamedModels
from worker.coroutines import run_unless, wait_for_all
from worker.judges import WorkerJudges
from worker.outages.commit import commit
from worker.tasks.attempt import Attempt
from worker.verdict.asking import Asking

FLUSH_SECONDS = 2.0
LOST_SHARE = 0.02
"""Of the time of an attempt, that may be lost with its worker; limits the number of writes."""
ROWS_AT_ONCE = 16
MOST_BYTES = 4 * 1024 * 1024
"""Of all questions as JSON, since they are stored with every group of answers."""


def run(attempt: Attempt) -> ComparisonResult:
    request = ComparisonRequest.model_validate(attempt.payload)
    path = attempt.folder / "rows"
    attempt.store.fetch(request.blob_key, path)
    questions = _drawn(path, request)
    if not questions:
        raise InvalidRequest(
            "No row of the file has an answer to compare with.", param="file", code="no_answers"
        )
    with attempt.database.reading() as session:
        earlier = stored_answers(session, attempt.claim)
    comparing = _Comparing(attempt, request, questions, earlier)
    try:
        run_unless(attempt.should_stop, comparing.run())
    finally:
        comparing.store()
    items = comparing.items()
    return comparison_of([model.id for model in request.models], items)


def _drawn(path: Path, request: ComparisonRequest) -> list[Question]:
    """Return the questions of rows that are drawn with the seed."""
    count = min(request.samples, request.rows)
    chosen = set(random.Random(request.seed).sample(range(request.rows), count))
    examples = enumerate(read_examples(path, request.columns))
    found = (question_of(*example) for index, example in examples if index in chosen)
    limit = {"max_tokens": request.max_tokens}
    return [question.model_copy(update=limit) for question in short(found, MOST_BYTES)]


class _Comparing:
    """One attempt at the rows that have no answers yet."""

    def __init__(
        self,
        attempt: Attempt,
        request: ComparisonRequest,
        questions: list[Question],
        earlier: ComparisonProgress | None,
    ) -> None:
        self._attempt = attempt
        self._request = request
        self._questions = questions
        self._items = {item.question.line: item for item in earlier.items} if earlier else {}
        self._targets = [
            Target(ModelId(model.id), model.base, model.adapter, model.serving)
            for model in request.models
        ]
        self._began_at = time.monotonic()
        self._is_stored = True
        self._storing = threading.Lock()

    async def run(self) -> None:
        settings = self._attempt.settings
        background = background_of(self._attempt.database, settings.engine_key)
        project = self._attempt.claim.project_id
        self._asking = Asking(background, project)
        models = NamedModels(self._request.grader_models, project, background)
        self._judges = WorkerJudges(models, settings.grader_limits)
        self._room = asyncio.Semaphore(ROWS_AT_ONCE)
        rest = [each for each in self._questions if each.line not in self._items]
        storing = asyncio.create_task(self._store_often())
        try:
            await background.during(wait_for_all([self._compare(each) for each in rest]))
        finally:
            storing.cancel()
            await asyncio.gather(storing, return_exceptions=True)

    async def _store_often(self) -> None:
        while True:
            elapsed = time.monotonic() - self._began_at
            await asyncio.sleep(max(FLUSH_SECONDS, LOST_SHARE * elapsed))
            await asyncio.to_thread(self.store)

    async def _compare(self, question: Question) -> None:
        async with self._room:
            answers = await wait_for_all(
                [self._answer(target, question) for target in self._targets]
            )
        self._items[question.line] = ComparedItem(question=question, answers=tuple(answers))
        self._is_stored = False

    async def _answer(self, target: Target, question: Question) -> ComparedAnswer:
        answer = await self._asking.ask(target, question)
        found = await scored(question, answer, self._judges)
        graders = self._request.graders
        return compared_answer(await graded(question, found, graders, self._judges))

    def store(self) -> None:
        """Store all answers so far, if there are new ones; StaleClaim if the claim has ended."""
        with self._storing:
            if self._is_stored:
                return
            self._is_stored = True
            progress = ComparisonProgress(
                items=tuple(self.items()),
                total=len(self._questions),
                omitted=min(self._request.samples, self._request.rows) - len(self._questions),
            )
            claim = self._attempt.claim
            try:
                commit(
                    self._attempt.database, lambda session: store_answers(session, claim, progress)
                )
            except BaseException:
                self._is_stored = False
                raise

    def items(self) -> list[ComparedItem]:
        """Return the rows that have answers, in the order of the file."""
        found = dict(self._items)  # the event loop may add to it while a thread stores
        return [found[each.line] for each in self._questions if each.line in found]
