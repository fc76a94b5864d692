"""Runs a batch: answers the lines of its input file, then writes its output files.

An attempt continues where the last one stopped: `worker.batches.journal` stores answered lines.
"""

from core.records.batch_progress import (
    begin_batch,
    begin_finalizing,
    end_batch,
    parts_of,
    should_finish,
)
from core.spec.batch import FINAL, BatchRequest, BatchResult, BatchStatus
from core.spec.ids import BatchId
from worker.answering.dispatch import Dispatch
from worker.answering.fleet import Fleet, connect_with
from worker.answering.look import look_at
from worker.batches.answering import Lines
from worker.batches.journal import Journal
from worker.batches.lines import requests_of
from worker.batches.output import write_errors, write_output
from worker.coroutines import Interrupted, run_unless
from worker.outages.commit import commit
from worker.tasks.attempt import Attempt

INPUT = "input.jsonl"
"""In the folder of an attempt."""


def run(attempt: Attempt) -> BatchResult:
    batch = BatchRequest.model_validate(attempt.payload)
    batch_id, claim = BatchId(batch.batch_id), attempt.claim
    status = commit(attempt.database, lambda session: begin_batch(session, claim, batch_id))
    if status in FINAL:  # an earlier attempt died before the end of its task
        return BatchResult(status=status)
    input_file = attempt.folder / INPUT
    attempt.store.fetch(batch.blob_key, input_file)
    if status is BatchStatus.IN_PROGRESS:
        _answer(attempt, batch)
    return BatchResult(status=_finish(attempt, batch))


def _answer(attempt: Attempt, batch: BatchRequest) -> None:
    """Answer the lines that no part has. Raises Interrupted if the worker stops."""
    batch_id, project = BatchId(batch.batch_id), attempt.claim.project_id
    with attempt.database.reading() as session:
        parts = parts_of(session, batch_id)
    journal = Journal(
        attempt.claim, attempt.database, attempt.store, attempt.folder, batch_id, len(parts)
    )

    answered = {number for part in parts for number in part.lines}
    lines = Lines(requests_of(attempt.folder / INPUT, batch, project, answered), journal)
    fleet = Fleet(connect_with(attempt.settings.engine_key))
    look = look_at(attempt.database, lambda session: should_finish(session, batch_id))
    dispatch = Dispatch(lines, fleet, look)
    try:
        run_unless(attempt.should_stop, dispatch.run())
    except Interrupted:
        journal.store()
        raise
    journal.store()


def _finish(attempt: Attempt, batch: BatchRequest) -> BatchStatus:
    """Write the files and end the batch; the same again if an earlier attempt got halfway."""
    batch_id, claim, database = BatchId(batch.batch_id), attempt.claim, attempt.database
    store, folder = attempt.store, attempt.folder
    status, files = commit(database, lambda session: begin_finalizing(session, claim, batch_id))
    with database.reading() as session:
        parts = parts_of(session, batch_id)
    answered = {number for part in parts for number in part.lines}
    output = write_output(store, folder, parts, files.output)
    error, unanswered = write_errors(
        store, folder, parts, files.error, folder / INPUT, answered, status
    )
    return commit(
        database,
        lambda session: end_batch(
            session, claim, batch_id, output=output, error=error, unanswered=unanswered
        ),
    )
