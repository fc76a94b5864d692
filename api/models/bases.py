"""The files of the catalog's bases: where they are, and their downloads."""

from functools import partial

from sqlalchemy.orm import Session

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.models.schemas import DownloadObject
from core.catalog.base_files import is_on_hub, look_for
from core.catalog.bases import CatalogEntry
from core.errors import NotFound
from core.inference.targets import require_base
from core.records.base_downloads import newest_download, request_download
from core.records.engines import living_engines
from core.records.tables import Task
from core.records.worker_bases import found_bases
from core.spec.base_files import BaseFiles, BaseSource, DownloadProgress
from core.spec.base_model import BaseModelSpec
from core.spec.ids import ModelId
from core.tasks.failure import TaskFailure
from core.tasks.kinds import Work


class KnownFiles:
    """What workers and engines know about the files of bases, and this machine if they do not."""

    def __init__(self, session: Session, state: AppState) -> None:
        self._settings = state.settings
        self._reported = found_bases(session)
        reports = [engine.report for engine in living_engines(session)]
        self._on_engines = {BaseSource.of(base) for report in reports for base in report.bases}
        self._on_engines.update(files for report in reports for files in report.present)

    def reported(self, base: BaseModelSpec) -> BaseFiles | None:
        """Return what the workers report; None if no living worker looks for the base."""
        return self._reported.get(BaseSource.of(base))

    def of(self, entry: CatalogEntry) -> BaseFiles:
        """Return the state of the files; size and license are those of the catalog if unknown."""
        base, settings = entry.spec, self._settings
        files = self.reported(base) or look_for(
            base, settings.hub_folder, may_download=not settings.hub_offline
        )
        return BaseFiles(
            state="present" if BaseSource.of(base) in self._on_engines else files.state,
            bytes=files.bytes or entry.bytes,
            license=files.license or entry.license,
        )


def require_files(
    session: Session, state: AppState, base: BaseModelSpec, *, or_downloadable: bool = False
) -> bool:
    """Return whether the base must be downloaded first; NotFound `base_missing` if it cannot.

    Without `or_downloadable`, NotFound also if it must be. A base that no living worker looks for
    is accepted, because its files may exist only on the workers' machines.
    """
    files = KnownFiles(session, state).reported(base)
    if files is None or files.state == "present":
        return False
    if files.state == "missing" or not or_downloadable:
        raise missing_base(base, files)
    return True


def missing_base(base: BaseModelSpec, files: BaseFiles) -> NotFound:
    """Return the error for a base without files, which says how to get them."""
    if files.state == "downloadable":
        how = (
            f"is not downloaded yet. Send POST /v1/models/{base.id}/download; a fine-tuning job "
            "on it downloads it, too."
        )
    elif is_on_hub(base):
        how = (
            "is not in the Hugging Face cache of the workers, which may not download it "
            f"(HF_HUB_OFFLINE). Run `hf download {base.source}` with their HF_HOME, or allow "
            "downloads."
        )
    else:
        how = (
            "has no folder with config.json and safetensors weights on the machines of the "
            "workers. Put it there, or correct its source in the catalog."
        )
    return NotFound(f"The base model {base.id} {how}", param="model", code="base_missing")


def download(
    transaction: Transaction, state: AppState, caller: Caller, name: ModelId
) -> DownloadObject:
    """Request the download of a base, unless it is present or being downloaded."""
    session = transaction.session
    base = require_base(state.catalog, name, "downloaded")
    files = KnownFiles(session, state).of(state.catalog.entry(base.id))
    if files.state == "present":
        return _present(base, files)
    if files.state == "missing":
        raise missing_base(base, files)
    task = request_download(session, caller.project, base)
    transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
    return _object(base, task)


def get_download(session: Session, state: AppState, name: ModelId) -> DownloadObject:
    """Return the newest download of a base; NotFound `download_not_found` without one."""
    base = require_base(state.catalog, name, "downloaded")
    files = KnownFiles(session, state).of(state.catalog.entry(base.id))
    task = newest_download(session, base)
    if files.state == "present" and (task is None or task.finished_at is not None):
        return _present(base, files)
    if task is None:
        raise NotFound(
            f"No download of {base.id} was requested. Send POST /v1/models/{base.id}/download.",
            param="model",
            code="download_not_found",
        )
    return _object(base, task)


def _present(base: BaseModelSpec, files: BaseFiles) -> DownloadObject:
    size = files.bytes or 0
    return DownloadObject(model=base.id, status="succeeded", bytes=size, total_bytes=size)


def _object(base: BaseModelSpec, task: Task) -> DownloadObject:
    progress = DownloadProgress.model_validate(task.progress or {"bytes": 0, "total_bytes": 0})
    failure = None if task.error is None else TaskFailure.model_validate(task.error)
    status = "queued" if task.lease_expires_at is None else "running"
    if task.finished_at is not None:
        status = "succeeded" if failure is None else "failed"
    return DownloadObject.model_validate(
        {
            "model": base.id,
            "status": status,
            "bytes": progress.bytes,
            "total_bytes": progress.total_bytes or None,
            "error": failure and failure.model_dump(include={"code", "message", "param"}),
        }
    )
