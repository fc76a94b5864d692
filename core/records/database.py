"""Connections and transactions.

There are two entry points: `reading()` and `writing()`. On SQLite a writing transaction begins with
`BEGIN IMMEDIATE`, so that writers queue instead of failing with "database is locked". On Postgres a
writing transaction relies on row locks, taken in the order files, jobs, everything else; a reading
transaction is a read-only snapshot.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import Double

POOL_SIZE = 48
"""At least as many connections as request threads; otherwise handlers wait for each other."""

SQLITE_BUSY_TIMEOUT_MS = 60_000


class database_now(GenericFunction[float]):
    """SQL function: Unix seconds of the database's clock, the only clock used for leases."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgres_now(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


class Database:
    """A pool of connections to one database; thread-safe, but not for use after a fork."""

    def __init__(self, url: str) -> None:
        self.engine = _create_engine(url)
        self._reading = sessionmaker(
            self.engine.execution_options(**_READING[self.engine.dialect.name]),
            expire_on_commit=False,
            autoflush=False,
        )
        self._writing = sessionmaker(
            self.engine.execution_options(tunesmith_writing=True), expire_on_commit=False
        )

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session with a consistent snapshot, which is rolled back at the end."""
        with self._reading() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session that commits at the end of the block, or rolls back on an exception."""
        with self._writing.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


_READING: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


def _create_engine(url: str) -> Engine:
    # SQLite would store NaN, which Postgres rejects and clients cannot parse.
    serializer = partial(json.dumps, allow_nan=False)
    if not url.startswith("sqlite"):
        return create_engine(
            url, pool_size=POOL_SIZE, pool_pre_ping=True, json_serializer=serializer
        )
    engine = create_engine(url, pool_size=POOL_SIZE, json_serializer=serializer)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions
    for pragma in (
        f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}",  # first, because the switch to WAL may wait
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get("tunesmith_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
