"""The moves of a worker that exports a model, made by hand."""

from core.artifacts.archive import contents, pack_state
from core.records import exports, tasks
from core.spec.export import ExportContent, ExportedFile, ExportReplay, ExportResult
from tests.api.live import Api


def finish_export(api: Api, export_id: str) -> bytes:
    """End the export as a worker does; return the archive."""
    folder = api.folder / export_id
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    archive = api.folder / f"{export_id}.zip"
    sha256 = pack_state(folder, archive)
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker-test", [exports.EXPORT])
    assert claim is not None and claim.id == export_id
    blob = api.state.store.write_file(exports.content_key(claim.id, claim.token), archive)
    files = tuple(ExportedFile(path=p, bytes=n, offset=o) for p, n, o in contents(archive))
    content = ExportContent(key=blob.key, bytes=blob.bytes, sha256=sha256, files=files)
    replay = ExportReplay(status="unchecked", reason="Nothing was compared.")
    with api.database.writing() as session:
        tasks.succeed(session, claim, ExportResult(content=content, replay=replay))
    return archive.read_bytes()
