"""The models that a distillation asks: the teacher, and those of graders."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import DBAPIError

from core.catalog.external import Endpoints
from core.grading.judges import Judges
from core.records.database import Database
from core.records.engines import living_engines
from core.records.model_usage import ModelUsage
from core.spec.distillation import DistillationRequest
from core.spec.ids import ProjectId
from worker.answering.dispatch import Seen
from worker.answering.external import ExternalClient
from worker.engine_client.any_engine import AnyEngine
from worker.evals.asking import Asking
from worker.evals.items import _ItemJudges
from worker.judges import WorkerJudges
from worker.settings import WorkerSettings


class Models:
    def __init__(self, asking: Asking, judges: WorkerJudges) -> None:
        self._asking = asking
        self._judges = judges

    async def ask(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._asking.ask(url, body)

    def judges(self, usage: list[ModelUsage]) -> Judges:
        return _ItemJudges(self._asking, self._judges.run_python, usage)

    async def run(self) -> None:
        await self._asking.run()


@asynccontextmanager
async def models_of(
    database: Database,
    settings: WorkerSettings,
    project: ProjectId,
    request: DistillationRequest,
    endpoints: Endpoints,
) -> AsyncIterator[Models]:
    external = ExternalClient(endpoints)

    def look() -> Seen | None:
        try:
            with database.reading() as session:
                return Seen(is_over=False, engines=living_engines(session))
        except DBAPIError:
            return None

    asking = Asking(project, request.models, settings.engine_key, look, external)
    engine = AnyEngine(database, settings.engine_key)
    judges = WorkerJudges({}, project, engine, settings.grader_limits)
    try:
        yield Models(asking, judges)
    finally:
        await external.close()
