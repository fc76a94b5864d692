"""Imports of adapters in a workshop, by a child that only pretends."""

from core.records.made_models import IMPORT, get_making, request_import
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Task
from core.spec.ids import TaskId
from core.spec.job import JobSpec
from core.spec.made_model import ImportRequest, SourceFile
from core.spec.making import MadeBundle, MakingRequest
from core.spec.parity import ParityReference
from core.spec.run_request import archive_of
from core.spec.tuned import TunedSpec
from tests.core.adapter_files.archives import folder, zipped
from tests.worker.killed_attempts import attempt_task_until
from tests.worker.workshop import TINY, Workshop
from worker.tasks import making

TUNED = TunedSpec.of(JobSpec(base=TINY, seed=0))
REFERENCE = ParityReference(precision="fp32", missing="a child that only pretends")


def pretended(request: MakingRequest, should_stop: object) -> MadeBundle:
    """Stand in for the child: the archive is some bytes, and names no rows to compare."""
    assert (request.adapter_folder / "adapter_model.safetensors").exists()
    archive_of(request.bundle_folder).write_bytes(b"a bundle")
    return MadeBundle(tuned=TUNED, parameters=32, reference=REFERENCE)


def create(workshop: Workshop, content: bytes | None = None) -> TaskId:
    blob = workshop.store.write("files/file-a", [zipped(folder()) if content is None else content])
    request = ImportRequest(
        requested_model="tiny",
        base=TINY,
        files=(SourceFile(id="file-a", name="a.zip", blob_key=blob.key),),
        suffix="mine",
    )
    with workshop.database.writing() as session:
        ensure_project(session)
        return request_import(session, DEFAULT_PROJECT, request).id


def attempt_until(workshop: Workshop, point: int | None) -> int | None:
    return attempt_task_until(workshop, IMPORT, making, point)


def task_of(workshop: Workshop, task_id: TaskId) -> Task:
    with workshop.database.reading() as session:
        return get_making(session, DEFAULT_PROJECT, IMPORT, task_id)
