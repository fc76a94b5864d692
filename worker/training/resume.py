"""Stores and fetches the resume states of one job.

The newest two states are kept. Their list is written under the claim, so a worker that has lost its
job can neither add nor remove one.
"""

from typing import Any

from sqlalchemy.orm import Session

from core.artifacts.archive import unpack_state
from core.errors import TunesmithError, Unavailable
from core.records import claims, events, leases, resume_states
from core.records.claims import Claim
from core.records.database import Database
from core.records.events import NewEvent
from core.records.resume_states import ResumeState
from core.spec.bundle import BundleRef
from core.spec.events import ResumeStateSaved
from core.spec.run_request import archive_of
from core.spec.workspace import Workspace
from core.storage.blobs import BlobStore
from core.storage.compensation import delete_on_failure
from worker.bundles import fetch_checked
from worker.outages.commit import commit, may_have_committed


class ResumeStates:
    """Fetches the states of the claimed job once, and stores those that its run saves."""

    def __init__(self, database: Database, store: BlobStore, claim: Claim) -> None:
        self._database = database
        self._store = store
        self._claim = claim
        self._states: tuple[ResumeState, ...] = ()

    def fetch(self, workspace: Workspace) -> None:
        """Unpack the newest intact state into the workspace.

        Missing or damaged states are deleted, each with an event. Raises Unavailable if storage is
        unavailable, because the states may be intact.
        """
        recorded = commit(
            self._database,
            lambda session: resume_states.states_of(claims.claimed_job(session, self._claim)),
        )
        usable, warnings = list(recorded), []
        while usable:
            try:
                self._unpack(usable[0], workspace)
                break
            except Unavailable:
                raise
            except TunesmithError as error:
                step = usable.pop(0).step
                message = f"The state saved after step {step} cannot be used: {error.message}"
                warnings.append(NewEvent(message, "warn"))
        self._states = tuple(usable)
        if not warnings:
            return
        if not usable:
            warnings.append(NewEvent("No saved state is left; the run starts again.", "warn"))

        def write(session: Session) -> None:
            step, column = resume_states.newest_step(usable), resume_states.as_column(usable)
            leases.hold(session, self._claim, step=step, resume_states=column)
            events.append_events(session, self._claim.job_id, warnings)

        commit(self._database, write)
        for state in recorded[: len(recorded) - len(usable)]:
            self._store.delete(state.key)

    def keep(self, event: ResumeStateSaved) -> None:
        """Store a state that the child has packed, and delete the oldest ones above the limit."""
        key = f"resume/{self._claim.job_id}/{self._claim.token}/step-{event.step}.zip"
        archive = archive_of(event.folder)
        blob = self._store.write_file(key, archive)
        archive.unlink()
        state = ResumeState(step=event.step, key=key, sha256=blob.sha256)
        kept, dropped = resume_states.with_newest(self._states, state)
        columns: dict[str, Any] = {"resume_states": resume_states.as_column(kept)}
        if event.step > resume_states.newest_step(self._states):
            columns["attempts"] = 1  # the run made progress, so earlier crashes no longer count

        def write(session: Session) -> None:
            leases.hold(session, self._claim, **columns)

        with delete_on_failure(self._store, key, unless=may_have_committed):
            commit(self._database, write)
        self._states = kept
        for old in dropped:
            self._store.delete(old)

    def _unpack(self, state: ResumeState, workspace: Workspace) -> None:
        folder = workspace.resume_folder(state.step)
        archive = archive_of(folder)
        fetch_checked(self._store, BundleRef(key=state.key, sha256=state.sha256), archive)
        unpack_state(archive, folder)
        archive.unlink()
