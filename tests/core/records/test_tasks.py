"""Tasks: claimed once, fenced, rescued from dead workers, and ended for good."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from unittest.mock import patch

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.errors import InvalidRequest, NotFound, StaleClaim, TunesmithError, Unavailable
from core.records import leases, outbox, tasks
from core.records.database import Database, database_now
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import OutboxMessage, Task
from core.records.tasks import TaskClaim
from core.spec.base import Spec
from core.tasks.failure import TaskFailure
from core.tasks.kinds import KINDS, Work
from tests.worker.nap import NAP, nap_kind


class Dream(Spec):
    text: str = "sheep"


FAILURE = TaskFailure(code="too_loud", message="Nobody can sleep here.")


@pytest.fixture(autouse=True)
def _kind() -> Iterator[None]:
    with nap_kind():
        yield


@pytest.fixture
def ask(database: Database) -> Callable[..., str]:
    def ask(kind: str = "nap", project_id: str = DEFAULT_PROJECT) -> str:
        with database.writing() as session:
            ensure_project(session, project_id)
            task = tasks.create_task(session, project_id, kind, subject="bed", payload=Dream())
            return task.id

    return ask


def claim(database: Database, worker_id: str = "worker-1", *kinds: str) -> TaskClaim | None:
    with database.writing() as session:
        return tasks.claim_next(session, worker_id, kinds or ["nap"])


def claimed(database: Database, worker_id: str = "worker-1") -> TaskClaim:
    found = claim(database, worker_id)
    assert found is not None
    return found


def row(database: Database, task_id: str) -> Task:
    with database.reading() as session:
        task = tasks.find_task(session, DEFAULT_PROJECT, "nap", task_id)
    assert task is not None
    return task


def messages(database: Database) -> list[tuple[str, str]]:
    with database.reading() as session:
        rows = session.execute(select(OutboxMessage.kind, OutboxMessage.id)).all()
        return [(kind, id_) for kind, id_ in rows]


def expire(database: Database) -> None:
    with database.writing() as session:
        session.execute(
            update(Task)
            .where(Task.lease_expires_at.is_not(None))
            .values(lease_expires_at=database_now() - 0.001)
        )


def skip_pause(database: Database) -> None:
    with database.writing() as session:
        session.execute(update(Task).values(not_before=None))


def rescue(database: Database, worker_id: str | None = None) -> list[Work]:
    with database.writing() as session:
        return list(tasks.rescue_expired(session, worker_id=worker_id))


def test_oldest_is_claimed_first_and_once(database: Database, ask: Callable[..., str]) -> None:
    first, second = ask(), ask()
    assert [found and found.id for found in (claim(database) for _ in range(3))] == [
        first,
        second,
        None,
    ]


def test_claim_takes_only_the_kinds_it_may_run(database: Database, ask: Callable[..., str]) -> None:
    ask("mask_audit")
    nap = ask()
    found = claim(database, "worker-1", "nap", "speed_test")
    assert found is not None and (found.id, found.payload) == (nap, {"text": "sheep"})
    assert claim(database, "worker-1", "nap") is None
    with database.writing() as session:
        assert tasks.claim_next(session, "worker-1", []) is None


def test_lease_is_that_of_the_kind(database: Database, ask: Callable[..., str]) -> None:
    ask("mask_audit")
    ask()
    with database.writing() as session:
        for _ in range(2):
            tasks.claim_next(session, "worker-1", ["nap", "mask_audit"])
        left = session.execute(select(Task.kind, Task.lease_expires_at - database_now())).all()
    lasting = dict(left)
    assert lasting["nap"] == pytest.approx(NAP.lease_seconds, abs=1.4)
    assert lasting["mask_audit"] == pytest.approx(KINDS["mask_audit"].lease_seconds, abs=5)


def test_several_workers_claim_each_task_once(database: Database, ask: Callable[..., str]) -> None:
    asked = {ask() for _ in range(12)}
    barrier = Barrier(4)

    def work(number: int) -> list[str]:
        barrier.wait()
        mine = []
        while (found := claim(database, f"worker-{number}")) is not None:
            mine.append(found.id)
        return mine

    with ThreadPoolExecutor(4) as pool:
        found = [id_ for mine in pool.map(work, range(4)) for id_ in mine]
    assert sorted(found) == sorted(asked)


def test_message_waits_until_the_claim(database: Database, ask: Callable[..., str]) -> None:
    task_id = ask()
    assert messages(database) == [("nap", task_id)]
    claimed(database)
    assert messages(database) == []


def test_result_can_be_read_by_its_project_and_kind_alone(
    database: Database, ask: Callable[..., str]
) -> None:
    task_id = ask()
    with database.writing() as session:
        tasks.succeed(session, claimed_in(session), Dream(text="wool"))
    task = row(database, task_id)
    assert (task.result, task.error) == ({"text": "wool"}, None)
    assert task.finished_at is not None and task.claimed_by is None
    with database.reading() as session:
        assert tasks.find_task(session, "another", "nap", task_id) is None
        assert tasks.find_task(session, DEFAULT_PROJECT, "mask_audit", task_id) is None
    assert claim(database) is None


def claimed_in(session: Session) -> TaskClaim:
    found = tasks.claim_next(session, "worker-1", ["nap"])
    assert found is not None
    return found


WRITES: dict[str, Callable[[Session, TaskClaim], None]] = {
    "beat": lambda session, held: leases.beat(session, held, 30),
    "succeed": lambda session, held: tasks.succeed(session, held, Dream()),
    "fail": lambda session, held: tasks.fail(session, held, FAILURE),
    "release": tasks.release,
    "retry": lambda session, held: tasks.retry(session, held, FAILURE),
}


@pytest.mark.parametrize("end", ["rescued", "released", "succeeded", "failed", "crashed", "gone"])
def test_every_write_of_an_ended_claim_is_refused(
    database: Database, ask: Callable[..., str], end: str
) -> None:
    task_id = ask()
    held = claimed(database)
    with database.writing() as session:
        match end:
            case "rescued":
                assert tasks.rescue_expired(session, worker_id="worker-1") == [held.work]
            case "released":
                tasks.release(session, held)
            case "succeeded":
                tasks.succeed(session, held, Dream())
            case "failed":
                tasks.fail(session, held, FAILURE)
            case "crashed":
                tasks.retry(session, held, FAILURE)
            case _:
                tasks.forget_tasks(session, Task.id == task_id)
    before = columns(database, task_id)
    for write in WRITES.values():
        with pytest.raises(StaleClaim), database.writing() as session:
            write(session, held)
        assert columns(database, task_id) == before


def columns(database: Database, task_id: str) -> dict[str, object]:
    with database.reading() as session:
        task = session.get(Task, task_id)
        return {} if task is None else {c.key: getattr(task, c.key) for c in Task.__table__.columns}


def test_task_of_a_dead_worker_is_claimed_again_and_fails_in_the_end(
    database: Database, ask: Callable[..., str]
) -> None:
    task_id = ask()
    for attempt in range(1, NAP.max_attempts + 1):
        held = claimed(database, "worker-dead")
        assert rescue(database) == [] and rescue(database, "another") == []
        expire(database)
        is_last = attempt == NAP.max_attempts
        assert rescue(database) == ([] if is_last else [held.work])
        assert messages(database) == ([] if is_last else [("nap", task_id)])
    assert claim(database) is None
    task = row(database, task_id)
    assert task.error is not None and task.finished_at is not None
    assert (task.error["code"], task.attempts) == ("worker_lost", NAP.max_attempts)
    assert "3 times" in task.error["message"]


def test_released_task_does_not_count_the_attempt(
    database: Database, ask: Callable[..., str]
) -> None:
    ask()
    for _ in range(NAP.max_attempts + 1):
        held = claimed(database)
        with database.writing() as session:
            tasks.release(session, held)
    assert row(database, held.id).attempts == 0


def test_crash_pauses_and_the_pause_doubles(database: Database, ask: Callable[..., str]) -> None:
    with nap_kind(retry_seconds=100):
        task_id = ask()
        pauses = []
        for _ in range(NAP.max_attempts - 1):
            held = claimed(database)
            with database.writing() as session:
                tasks.retry(session, held, FAILURE)
                pause = select(Task.not_before - database_now())
                pauses.append(session.scalars(pause).one())
                assert outbox.due(session) == []
            assert claim(database) is None
            skip_pause(database)
        assert pauses == pytest.approx([100, 200], abs=5)
        held = claimed(database)
        with database.writing() as session:
            tasks.retry(session, held, FAILURE)
    task = row(database, task_id)
    assert task.error is not None
    assert TaskFailure.model_validate(task.error) == FAILURE


def test_kinds_of_a_newer_version_are_left_to_it(
    database: Database, ask: Callable[..., str]
) -> None:
    """During an upgrade the housekeeping of the version before still runs."""
    newer, known = ask(), ask("mask_audit")
    for kind in ("nap", "mask_audit"):
        assert claim(database, "worker-1", kind) is not None
    expire(database)
    waiting = ask()
    with patch.dict(KINDS):
        del KINDS["nap"]
        assert rescue(database) == [Work("mask_audit", known)]
        with database.writing() as session:
            session.execute(update(OutboxMessage).values(send_after=0.0))
        with database.reading() as session:
            assert outbox.due(session) == [Work("mask_audit", known)]
    assert rescue(database) == [Work("nap", newer)]
    assert ("nap", waiting) in messages(database)


def test_housekeepers_rescue_each_task_once(database: Database, ask: Callable[..., str]) -> None:
    asked = sorted(ask() for _ in range(6))
    for _ in asked:
        claimed(database)
    expire(database)
    barrier = Barrier(3)

    def keep_house(_: int) -> list[str]:
        barrier.wait()
        return [work.id for work in rescue(database)]

    with ThreadPoolExecutor(3) as pool:
        rescued = [id_ for found in pool.map(keep_house, range(3)) for id_ in found]
    assert sorted(rescued) == asked


def test_ended_tasks_are_kept_as_long_as_their_kind_says(
    database: Database, ask: Callable[..., str]
) -> None:
    old, fresh, waiting = ask(), ask(), ask()
    for task_id in (old, fresh):
        held = claimed(database)
        assert held.id == task_id
        with database.writing() as session:
            tasks.succeed(session, held, Dream())
    with database.writing() as session:
        session.execute(
            update(Task)
            .where(Task.id.in_([old, waiting]))
            .values(
                created_at=Task.created_at - NAP.kept_seconds - 1,
                finished_at=Task.finished_at - NAP.kept_seconds - 1,
            )
        )
        tasks.forget_old_tasks(session)
        assert set(session.scalars(select(Task.id))) == {fresh, waiting}
    assert messages(database) == [("nap", waiting)]


def test_token_of_a_living_claim_is_known(database: Database, ask: Callable[..., str]) -> None:
    task_id = ask()
    with database.reading() as session:
        assert tasks.held_token(session, task_id) is None
    held = claimed(database)
    with database.reading() as session:
        assert tasks.held_token(session, task_id) == held.token
        assert tasks.held_token(session, "nap-unknown") is None


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("no", param="p", code="c"),
        NotFound("gone"),
        Unavailable("full", code="rate_limit_exceeded", retry_after_seconds=7),
        TunesmithError("broken", code="engine_failed"),
    ],
)
def test_failure_gives_back_the_error_that_it_was_made_of(error: TunesmithError) -> None:
    again = TaskFailure.model_validate(TaskFailure.of(error).model_dump(mode="json")).as_error()
    assert type(again) is type(error)
    assert vars(again) == {"code": error.code} | vars(error)
