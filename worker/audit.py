"""Mask audits that somebody asked for before a job: a short child each."""

import logging
import shutil
from functools import partial
from typing import Any

from core.errors import TunesmithError
from core.records import masks
from core.records.database import Database
from core.records.masks import WaitingAudit
from core.spec.events import MaskAudited, RunFailed
from core.spec.run import Workspace
from core.spec.run_request import RunRequest
from core.storage.blobs import BlobStore
from worker.launch import ask_for_audit
from worker.outages.commit import commit
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

AUDIT_SECONDS = 60.0


def audit_waiting_masks(settings: WorkerSettings, database: Database, store: BlobStore) -> None:
    """Answer every audit that waits, the oldest first."""
    while (waiting := commit(database, masks.take_waiting)) is not None:
        answer = _audit(settings, store, waiting)
        if isinstance(answer, MaskAudited):
            result: dict[str, Any] = {"rows": answer.rows}
        else:
            result = {"error": answer.model_dump(include={"code", "message", "param"})}
        commit(database, partial(masks.finish, audit_id=waiting.id, **result))


def _audit(
    settings: WorkerSettings, store: BlobStore, waiting: WaitingAudit
) -> MaskAudited | RunFailed:
    folder = (settings.work_folder / waiting.id).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        workspace = Workspace(folder=folder)
        store.fetch(waiting.blob_key, workspace.train_file)
        return ask_for_audit(RunRequest(waiting.spec, workspace, threads=1), AUDIT_SECONDS)
    except TunesmithError as error:
        return RunFailed(code=error.code, message=error.message, param=error.param)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
