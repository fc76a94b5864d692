"""Upgrade a database to the newest schema: `python -m migrations.upgrade`, or `upgrade(url)`.

Any number of processes may do this concurrently at startup: one upgrades, and the others wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, NullPool, create_engine, func, select

from migrations.settings import MigrationSettings

LOCK_ID = 0x74756E65
"""The key of the Postgres advisory lock; an arbitrary unique number."""

WAIT_SECONDS = 60


def upgrade(database_url: str) -> None:
    """Run all missing migrations in one transaction."""
    with migrating(database_url) as config:
        command.upgrade(config, "head")


@contextmanager
def migrating(database_url: str) -> Iterator[Config]:
    """Yield Alembic's configuration for a transaction with an exclusive migration lock."""
    is_sqlite = database_url.startswith("sqlite")
    engine = create_engine(
        database_url,
        poolclass=NullPool,
        connect_args={"timeout": WAIT_SECONDS} if is_sqlite else {},
    )
    with engine.connect() as connection:
        if is_sqlite:
            _begin_sqlite(connection)
        else:
            connection.execute(select(func.pg_advisory_xact_lock(LOCK_ID)))
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        config.attributes["connection"] = connection
        yield config
        connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    """Begin a write transaction that includes DDL; foreign keys are off while tables are copied."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.isolation_level = None
    connection.exec_driver_sql("BEGIN IMMEDIATE")


if __name__ == "__main__":
    upgrade(MigrationSettings().database_url)
