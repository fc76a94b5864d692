"""A comparison whose worker is killed: stored answers are not asked again."""

import asyncio
import json
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from core.jobs.broker import Broker
from core.records import comparisons, tasks
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Task
from core.spec.batch import BatchModel
from core.spec.bundle import BundleRef
from core.spec.comparison import ComparisonProgress, ComparisonRequest, ComparisonResult
from core.spec.generation import (
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    TextPrompt,
)
from core.tasks.kinds import Queue, Work
from tests.api.live import serve
from tests.worker.workshop import TINY, Workshop, wait_until, worker_process
from worker.context import Worker
from worker.tasks.desk import TaskDesk

ROWS = 6
HANGING = ("question 4", "question 5")
MODELS = (
    BatchModel(id="tiny", base=TINY, adapter=None),
    BatchModel(id="ft:tiny", base=TINY, adapter=BundleRef(key="k", sha256="0" * 64)),
)


class Engine:
    """Adapters answer "right", bases "wrong"; some questions get no answer at first."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.hangs = True
        self.app = Starlette(routes=[Route("/generate", self._generate, methods=["POST"])])

    async def _generate(self, request: Request) -> Response:
        asked = GenerationRequest.model_validate_json(await request.body())
        assert isinstance(asked.prompt, TextPrompt) and asked.background
        self.asked[asked.prompt.text] += 1
        return StreamingResponse(self._lines(asked, asked.prompt.text))

    async def _lines(self, asked: GenerationRequest, text: str) -> AsyncIterator[str]:
        yield GenerationStarted(prompt_tokens=1).model_dump_json() + "\n"
        if self.hangs and text in HANGING:
            await asyncio.sleep(3600)
        answer = "wrong" if asked.adapter is None else "right"
        for event in (
            GenerationDelta(choice=0, text=answer),
            ChoiceFinished(choice=0, finish_reason="stop", completion_tokens=1),
        ):
            yield event.model_dump_json() + "\n"


def request_of(workshop: Workshop) -> str:
    rows = [{"prompt": f"question {number}", "completion": "right"} for number in range(ROWS)]
    file_id = workshop.upload("".join(json.dumps(row) + "\n" for row in rows))
    request = ComparisonRequest(
        models=MODELS,
        blob_key=f"files/{file_id}",
        rows=ROWS,
        samples=ROWS,
        seed=0,
        max_tokens=8,
    )
    with workshop.database.writing() as session:
        task = comparisons.request_comparison(session, DEFAULT_PROJECT, file_id, request)
        return task.id


def task_of(workshop: Workshop, task_id: str) -> Task:
    with workshop.database.reading() as session:
        return comparisons.get_comparison(session, DEFAULT_PROJECT, task_id)


def stored(workshop: Workshop, task_id: str) -> int:
    progress = task_of(workshop, task_id).progress
    return len(ComparisonProgress.model_validate(progress).items) if progress else 0


def test_killed_worker_asks_no_stored_question_again(workshop: Workshop) -> None:
    engine = Engine()
    with serve(engine.app) as url:
        workshop.engine_at(url)
        task_id = request_of(workshop)
        with worker_process(workshop, "worker-dead", "worker.light") as process:
            Broker(workshop.broker_url).wake(Work(comparisons.COMPARISON, task_id))
            wait_until(lambda: stored(workshop, task_id) == ROWS - 2, "four rows are stored")
            process.send_signal(signal.SIGKILL)
            process.wait()
        engine.hangs = False
        with workshop.database.writing() as session:
            assert tasks.rescue_expired(session, worker_id="worker-dead")
        worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
        TaskDesk(worker, Queue.LIGHT).run_waiting()
    task = task_of(workshop, task_id)
    assert task.error is None and stored(workshop, task_id) == ROWS
    asked_twice = {text for text, times in engine.asked.items() if times > len(MODELS)}
    assert asked_twice == set(HANGING)
    result = ComparisonResult.model_validate(task.result)
    assert [model.scores["exact_match"] for model in result.models] == [0, 1]
    ((exact, _),) = [difference.metrics for difference in result.differences]
    assert (exact.rows, exact.interval) == (ROWS, (1, 1))
