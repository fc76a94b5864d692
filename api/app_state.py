"""What handlers work with, and how they get it.

One request is one transaction, which the handler opens and ends in its own thread. It has
committed when the handler returns, so an answer of 200 means that it is written. As a
dependency with an exit it would hold the database while it waits for another thread to
serialize the answer; forty handlers that wait for the database would then keep that thread
from it, and everything would stand still.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.settings import ApiSettings
from api.shared_runs import SharedRuns
from core.catalog.bases import Catalog
from core.jobs.broker import Broker
from core.records.database import Database
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.generation import GenerationEvent, GenerationRequest
from core.storage.blobs import BlobStore

logger = logging.getLogger(__name__)


class Engines(Protocol):
    """All engines, used as if they were one: `api.generation.engine_router`."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]: ...

    async def classify(self, request: ClassificationRequest) -> ClassificationAnswer: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Transaction:
    """A session that may write, and what is to be done once its commit has worked."""

    session: Session
    actions: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this after the commit. It must be something that may be lost: a failure is logged."""
        self.actions.append(action)


@dataclass(frozen=True)
class AppState:
    """Everything that outlives a request. Knows no resource; resources take from it."""

    settings: ApiSettings
    database: Database
    store: BlobStore
    broker: Broker
    catalog: Catalog
    engines: Engines
    uploads: CapacityLimiter
    parity_checks: SharedRuns[None] = field(default_factory=SharedRuns)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commit at the end of the block, then do what was put off until the commit."""
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
