"""What handlers work with, and how they get it.

One request is one transaction: it commits when the handler has returned and before the
answer is sent, so an answer of 200 means that it is written. Nobody else commits.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.generation.engine_client import EngineClient
from api.settings import ApiSettings
from core.catalog.bases import Catalog
from core.jobs.broker import Broker
from core.records.database import Database
from core.storage.blobs import BlobStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Everything that outlives a request."""

    settings: ApiSettings
    database: Database
    store: BlobStore
    broker: Broker
    catalog: Catalog
    engine: EngineClient


@dataclass
class Transaction:
    """A session that may write, and what is to be done once its commit has worked."""

    session: Session
    _actions: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Do this after the commit. It must be something that may be lost: a failure is logged."""
        self._actions.append(action)

    def committed(self) -> None:
        for action in self._actions:
            try:
                action()
            except Exception:
                logger.warning("An action after a commit failed", exc_info=True)


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _project(parts: Annotated[Parts, Depends(_parts)]) -> str:
    return parts.settings.project


def _reading(parts: Annotated[Parts, Depends(_parts)]) -> Iterator[Session]:
    with parts.database.reading() as session:
        yield session


def _writing(parts: Annotated[Parts, Depends(_parts)]) -> Iterator[Transaction]:
    with parts.database.writing() as session:
        transaction = Transaction(session)
        yield transaction
    transaction.committed()


# Without scope="function" FastAPI would leave these blocks only after the answer is sent.
FromParts = Annotated[Parts, Depends(_parts)]
Project = Annotated[str, Depends(_project)]
Reading = Annotated[Session, Depends(_reading, scope="function")]
Writing = Annotated[Transaction, Depends(_writing, scope="function")]
