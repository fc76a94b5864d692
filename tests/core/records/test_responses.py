"""Stored responses: the order of writes, what a task may still do, and expiry."""

import pytest
from sqlalchemy import update

from core.errors import NotFound, StaleClaim
from core.records import responses, tasks
from core.records.database import Database
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import OutboxMessage, OutputItem, ResponseEvents, StoredResponse, Task
from core.records.tasks import TaskClaim
from core.spec.response import ResponsePlan
from tests.core.inference.responses.planned import answer, plan_of, response_of

KEPT_SECONDS = 60.0


def queue(database: Database, *, is_streamed: bool = True) -> ResponsePlan:
    plan = plan_of(background=True, stream=is_streamed)
    body = {**plan.frame, "status": "queued", "output": []}
    events = [{"type": "response.created", "sequence_number": 0}] if is_streamed else []
    with database.writing() as session:
        ensure_project(session)
        responses.queue_response(
            session, DEFAULT_PROJECT, body, [], plan, events=events, kept_seconds=KEPT_SECONDS
        )
    return plan


def claim(database: Database) -> TaskClaim:
    with database.writing() as session:
        claimed = tasks.claim_next(session, "worker-1", [responses.RESPONSE])
    assert claimed is not None
    return claimed


def count(database: Database, table: type) -> int:
    with database.reading() as session:
        return session.query(table).count()


def test_finished_background_response_keeps_its_end(database: Database) -> None:
    plan = queue(database)
    claimed = claim(database)
    assert ResponsePlan.model_validate(claimed.payload) == plan
    body = response_of(plan, answer("Hi."))
    for _ in range(2):  # the answer to the first commit may be lost
        with database.writing() as session:
            event = {"type": "response.completed", "sequence_number": 1}
            responses.append_events(session, claimed, [event])
            responses.finish_response(session, claimed, body)
    with database.writing() as session:
        assert responses.last_event(session, plan.id) == 1
        row = responses.cancel_response(session, DEFAULT_PROJECT, plan.id)
        assert (row.body, row.is_finished) == (body, True)


def test_worker_of_a_cancelled_response_writes_nothing(database: Database) -> None:
    plan = queue(database)
    claimed = claim(database)
    with database.writing() as session:
        row = responses.cancel_response(session, DEFAULT_PROJECT, plan.id)
        assert row.body["status"] == "cancelled"
    for write in (
        lambda session: responses.append_events(session, claimed, [{"sequence_number": 1}]),
        lambda session: responses.finish_response(session, claimed, {"id": plan.id}),
    ):
        with pytest.raises(StaleClaim), database.writing() as session:
            write(session)
    assert count(database, OutboxMessage) == 0


@pytest.mark.parametrize("how", ["deleted", "expired"])
def test_everything_of_a_response_goes_with_it(database: Database, how: str) -> None:
    gone, kept = queue(database), queue(database)
    claimed = claim(database)
    assert claimed.payload["frame"]["id"] == gone.id
    with database.writing() as session:
        responses.finish_response(session, claimed, response_of(gone, answer("Hi.")))
    with database.writing() as session:
        if how == "deleted":
            responses.delete_response(session, DEFAULT_PROJECT, gone.id)
        else:
            of_gone = StoredResponse.id == gone.id
            session.execute(update(StoredResponse).where(of_gone).values(expires_at=1.0))
            responses.forget_expired_responses(session)
    with database.reading() as session:
        assert [row.id for row in session.query(StoredResponse)] == [kept.id]
        assert [row.response_id for row in session.query(ResponseEvents)] == [kept.id]
        assert [row.subject for row in session.query(Task)] == [kept.id]
    assert count(database, OutputItem) == 0


def test_expired_response_is_not_found_before_it_is_deleted(database: Database) -> None:
    response = response_of(plan_of(), answer("Hi."))
    with database.writing() as session:
        ensure_project(session)
        responses.store_response(session, DEFAULT_PROJECT, response, [], kept_seconds=-1)
    with database.reading() as session:
        with pytest.raises(NotFound):
            responses.get_response(session, DEFAULT_PROJECT, response["id"])
        ids = {response["output"][0]["id"]}
        assert responses.find_output_items(session, DEFAULT_PROJECT, ids) == {}


def test_events_are_read_from_any_number(database: Database) -> None:
    plan = queue(database)
    claimed = claim(database)
    for batch in ((1, 2), (3,), (4, 5, 6)):
        with database.writing() as session:
            events = [{"sequence_number": number} for number in batch]
            responses.append_events(session, claimed, events)
    with database.reading() as session:
        for after in range(-1, 8):
            found = responses.events_after(session, DEFAULT_PROJECT, plan.id, after)
            assert [event["sequence_number"] for event in found] == list(range(after + 1, 7))
        assert responses.last_event(session, plan.id) == 6
