"""Makes a model without a job, in one attempt at its task: child → bundle → parity → row.

A bundle's blob is written under a key that the progress has named before. So a later attempt finds
either the model, and then does nothing, or a blob that no row names, and deletes it.
"""

from core.errors import InvalidRequest
from core.parity.asking import Candidate
from core.records.ids import tuned_model_id
from core.records.made_models import record_made, store_progress, stored_progress
from core.records.models import StoredBundle
from core.spec.bundle import BundleRef
from core.spec.events import RunFailed
from core.spec.made_model import ImportRequest, MadeModel, MakingProgress, SoupRequest, Stage
from core.spec.making import ImportSource, MadeBundle, MakingRequest, SoupSource
from core.spec.run_request import archive_of
from core.storage.compensation import delete_on_failure
from worker.engine_client.find import EngineAddress, find_engine
from worker.launch import ask_for_bundle
from worker.outages.commit import commit, may_have_committed
from worker.parity.check import ParityCheck
from worker.tasks.attempt import Attempt


class Making:
    """One attempt. Raises StaleClaim if its claim has ended, Interrupted if the worker stops."""

    def __init__(self, attempt: Attempt, request: ImportRequest | SoupRequest) -> None:
        self._attempt = attempt
        self._base = request.base
        self._model_id = tuned_model_id(
            request.requested_model, attempt.claim.project_id, request.suffix, attempt.claim.id
        )

    def begin(self) -> MadeModel | None:
        """Return the model of an earlier attempt; else remove what it left, and return None."""
        attempt = self._attempt
        earlier = commit(attempt.database, lambda session: stored_progress(session, attempt.claim))
        if earlier is not None and earlier.made is not None:
            return earlier.made
        self._note("reading")
        if earlier is not None and earlier.bundle_key is not None:
            attempt.store.delete(earlier.bundle_key)
        return None

    def make(self, source: ImportSource | SoupSource) -> MadeModel:
        """Write the bundle, compare with PEFT, record. InvalidRequest if the weights do not fit."""
        attempt, settings = self._attempt, self._attempt.settings
        self._note("converting")
        request = MakingRequest(
            attempt.folder,
            self._base,
            source,
            settings.threads,
            settings.measured_in.absolute(),
            settings.engine_busy_file,
        )
        answer = ask_for_bundle(request, attempt.should_stop)
        if isinstance(answer, RunFailed):
            raise InvalidRequest(answer.message, param=answer.param, code=answer.code)
        claim = attempt.claim
        key = f"bundles/{claim.id}/{claim.token}/model.zip"
        self._note("comparing", bundle_key=key)
        with delete_on_failure(attempt.store, key, unless=may_have_committed):
            blob = attempt.store.write_file(key, archive_of(request.bundle_folder))
            bundle = StoredBundle(blob.key, blob.sha256)
            return self._record(answer, bundle)

    def _record(self, found: MadeBundle, bundle: StoredBundle) -> MadeModel:
        attempt, claim = self._attempt, self._attempt.claim
        reference = BundleRef(key=bundle.key, sha256=bundle.sha256)
        candidate = Candidate(self._base, reference, claim.project_id)
        made = MadeModel(
            model=self._model_id,
            tuned=found.tuned,
            parameters=found.parameters,
            parity=ParityCheck(self._engine, attempt.should_stop)(found.reference, candidate),
            warnings=found.warnings,
        )
        commit(
            attempt.database,
            lambda session: record_made(session, claim, made, bundle, found.reference),
        )
        return made

    def _engine(self, candidate: Candidate) -> EngineAddress | None:
        attempt = self._attempt
        key = attempt.settings.engine_key
        return find_engine(attempt.database, candidate.base, candidate.bundle, key)

    def _note(self, stage: Stage, bundle_key: str | None = None) -> None:
        attempt = self._attempt
        progress = MakingProgress(stage=stage, bundle_key=bundle_key)
        commit(attempt.database, lambda session: store_progress(session, attempt.claim, progress))
