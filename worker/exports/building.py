"""Builds the files of an export in children, one step after another, and stores their archive."""

from core.artifacts.archive import contents, pack_state
from core.artifacts.manifest import read_manifest
from core.catalog.base_files import config_folder, license_of
from core.cores import usable_cores
from core.exports.card import ExportFacts, export_card
from core.exports.order import Export, StepFailed, write_export
from core.records.exports import exported_model, store_progress
from core.spec.events import RunFailed
from core.spec.export import (
    ExportContent,
    ExportedFile,
    ExportProgress,
    ExportReplay,
    ExportRequest,
    ExportResult,
    ExportStage,
)
from core.spec.export_steps import ExportStep, StepResult
from worker.bundles import fetch_bundle
from worker.exports.workplace import Workplace
from worker.launch import ask_for_export_step
from worker.outages.commit import commit
from worker.outages.full_disk import DISK_FULL, is_disk_full

README = "README.md"


class Building:
    """One attempt to build the files of an export."""

    def __init__(self, attempt: Workplace, request: ExportRequest) -> None:
        self._attempt = attempt
        self._request = request
        self._bundle = attempt.folder / "bundle"
        self._out = attempt.folder / "export"

    def build(self, key: str) -> ExportResult:
        """Write, replay and store the export under `key`.

        Raises Interrupted, and TunesmithError with the reason if the export cannot be written. A
        replay that fails only marks the export.
        """
        self._tell("preparing")
        fetch_bundle(self._attempt.store, self._request.bundle, self._bundle)
        written, replay = write_export(self._export(), self._run, self._tell)
        self._write_card(replay, notes := (*written.notes, *self._notes()))
        return ExportResult(content=self._store(key), replay=replay, notes=notes)

    def _export(self) -> Export:
        attempt = self._attempt
        with attempt.database.reading() as session:
            reference, gap_nats = exported_model(session, attempt.claim)
        return Export(
            base=self._request.base,
            bundle=self._bundle,
            options=self._request.options,
            out=self._out,
            reference=reference,
            gap_nats=gap_nats,
            llama_cpp=attempt.settings.llama_cpp,
        )

    def _notes(self) -> tuple[str, ...]:
        variables = read_manifest(self._bundle).chat_template_kwargs
        if not variables:
            return ()
        return (
            f"The model was trained with the chat template variables {variables}; send them as "
            "`chat_template_kwargs`.",
        )

    def _write_card(self, replay: ExportReplay, notes: tuple[str, ...]) -> None:
        request = self._request
        folder = config_folder(request.base, self._attempt.settings.hub_folder)
        facts = ExportFacts(
            model=request.model,
            base=request.base,
            manifest=read_manifest(self._bundle),
            options=request.options,
            replay=replay,
            license=None if folder is None else license_of(folder),
            notes=notes,
        )
        (self._out / README).write_text(export_card(facts), encoding="utf-8")

    def _store(self, key: str) -> ExportContent:
        self._tell("storing")
        archive = self._attempt.folder / "export.zip"
        try:
            digest = pack_state(self._out, archive)
            blob = self._attempt.store.write_file(key, archive)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise StepFailed(
                "The disk became full while the export was stored. Free some space and request it "
                "again.",
                code=DISK_FULL,
            ) from error
        files = tuple(
            ExportedFile(path=path, bytes=size, offset=offset)
            for path, size, offset in contents(archive)
        )
        return ExportContent(key=key, bytes=blob.bytes, sha256=digest, files=files)

    def _run(self, step: ExportStep) -> StepResult:
        """Run a step in a child; StepFailed if it fails."""
        attempt = self._attempt
        threads = attempt.settings.threads or max(1, usable_cores() // 2)
        log = attempt.folder / "child.log"
        answer = ask_for_export_step(step, threads, log, attempt.should_stop)
        if isinstance(answer, RunFailed):
            raise StepFailed(answer.message, param=answer.param, code=answer.code)
        return answer

    def _tell(self, stage: ExportStage) -> None:
        progress, claim = ExportProgress(stage=stage), self._attempt.claim
        commit(self._attempt.database, lambda session: store_progress(session, claim, progress))
