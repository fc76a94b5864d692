"""A claim is kept alive whatever the database answers for a while."""

from contextlib import contextmanager

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.records.database import Database
from tests.worker.workshop import BEAT_SECONDS, Workshop, wait_until
from worker.lease import Lease


def test_lease_is_renewed_after_no_connection_was_free(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.submit()
    claim = workshop.claim()
    database, failures, renewed = Database(workshop.database_url), [], []

    @contextmanager
    def none_free():
        failures.append(PoolTimeout("QueuePool limit"))
        raise failures[-1]
        yield

    writing = database.writing

    @contextmanager
    def once_free():
        with writing() as session:
            yield session
        renewed.append(True)

    monkeypatch.setattr(database, "writing", none_free)
    with Lease(database, claim, lease_seconds=3 * BEAT_SECONDS, check_seconds=0.01) as lease:
        wait_until(lambda: len(failures) > 1, "two renewals fail")
        monkeypatch.setattr(database, "writing", once_free)
        wait_until(lambda: bool(renewed) or lease.lost.is_set(), "a renewal succeeds")
        assert not lease.lost.is_set()
    database.close()
