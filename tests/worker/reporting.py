"""An API that takes reports of engines and does nothing else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.spec.engine_protocol import EngineReport
from tests.api.live import serve


class ReportingDesk:
    """What it was told, in order; `status` and `answer` are what it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 204
        self.answer = b""
        self.reports: list[EngineReport] = []
        self.left: list[str] = []
        self.keys: set[str | None] = set()
        self.has_heard = threading.Event()
        route = Route("/internal/engines", self._take, methods=["PUT", "DELETE"])
        self.app = Starlette(routes=[route])

    async def _take(self, request: Request) -> Response:
        self.keys.add(request.headers.get("authorization"))
        if request.method == "DELETE":
            self.left.append(request.query_params["url"])
        else:
            self.reports.append(EngineReport.model_validate_json(await request.body()))
        self.has_heard.set()
        return Response(self.answer, status_code=self.status)


@contextmanager
def reporting_desk() -> Iterator[ReportingDesk]:
    desk = ReportingDesk()
    with serve(desk.app) as desk.url:
        yield desk
