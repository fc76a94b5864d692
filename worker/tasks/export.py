"""Exports a tuned model: writes its files, replays rows through them, stores them, pushes them.

What is stored is complete: the archive is written before the row that names it, under a key of this
attempt. After that, another attempt only pushes.
"""

from core.records.exports import content_key, content_keys, store_progress, stored_progress
from core.spec.export import ExportProgress, ExportRequest, ExportResult
from core.storage.compensation import delete_on_failure
from worker.exports.building import Building
from worker.exports.push import push
from worker.outages.commit import commit, may_have_committed
from worker.tasks.attempt import Attempt


def run(attempt: Attempt) -> ExportResult:
    request = ExportRequest.model_validate(attempt.payload)
    with attempt.database.reading() as session:
        earlier = stored_progress(session, attempt.claim)
    built = None if earlier is None else earlier.built
    if built is None:
        built = _build(attempt, request)
    if request.options.push_to is None:
        return built
    return built.model_copy(update={"push": push(attempt, request.options.push_to, built)})


def _build(attempt: Attempt, request: ExportRequest) -> ExportResult:
    claim = attempt.claim
    for key in content_keys(claim.id, claim.token - 1):  # of attempts that died before their row
        attempt.store.delete(key)
    key = content_key(claim.id, claim.token)
    with delete_on_failure(attempt.store, key, unless=_may_be_needed):
        built = Building(attempt, request).build(key)
        after = "storing" if request.options.push_to is None else "pushing"
        progress = ExportProgress(stage=after, built=built)
        commit(attempt.database, lambda session: store_progress(session, claim, progress))
    return built


def _may_be_needed(error: BaseException) -> bool:
    """Whether the row may be stored, or the process ends, which leaves it to the next attempt."""
    return may_have_committed(error) or not isinstance(error, Exception)
