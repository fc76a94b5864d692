"""The state of the application, and how handlers access it.

One request is one transaction, which the handler opens and ends in its own thread. It has
committed when the handler returns, so a 200 response means that the data is stored. As a dependency
with an exit, it would hold the database while waiting for another thread to serialize the response.
Forty handlers that wait for the database would then occupy all threads: a deadlock.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.news import News
from api.settings import ApiSettings
from api.shared_runs import SharedRuns
from core.catalog.bases import Catalog
from core.catalog.external import Endpoints
from core.jobs.broker import Broker
from core.records.database import Database
from core.sandbox.run import AT_ONCE
from core.spec.engine_calls import Answered, Asked, Call
from core.spec.generation import GenerationEvent, GenerationRequest
from core.spec.ids import JobId
from core.storage.blobs import BlobStore

logger = logging.getLogger(__name__)


class Engines(Protocol):
    """All engines, with the interface of one: `api.generation.engine_router`."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]: ...

    async def ask(self, call: Call[Asked, Answered], request: Asked) -> Answered: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Transaction:
    """A writing session, and actions for after its commit."""

    session: Session
    actions: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run an action after the commit. It must be optional: a failure is only logged."""
        self.actions.append(action)


@dataclass(frozen=True)
class AppState:
    """Everything that outlives a request. Independent of resources, which use it."""

    settings: ApiSettings
    database: Database
    store: BlobStore
    broker: Broker
    catalog: Catalog
    endpoints: Endpoints
    engines: Engines
    uploads: CapacityLimiter
    job_news: News[JobId]
    """The events of jobs that streams of this process wait for."""
    parity_checks: SharedRuns[None] = field(default_factory=SharedRuns)
    shared_reads: SharedRuns[Any] = field(default_factory=SharedRuns)
    """What several streams read at the same time."""
    graders: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(AT_ONCE))
    """Python graders; those that wait hold no thread."""

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commit at the end of the block, then run the actions for after the commit."""
        with self.database.writing() as session:
            transaction = Transaction(session)
            yield transaction
        for action in transaction.actions:
            try:
                action()
            except Exception:
                logger.warning("An action after a commit failed", exc_info=True)


async def _state(request: Request) -> AppState:
    state: AppState = request.app.state.tunesmith
    return state


FromState = Annotated[AppState, Depends(_state)]
"""A handler's parameter: the state of the application."""
