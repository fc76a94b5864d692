"""Pushes a stored export to the hub. A failure is recorded with the export, which is kept."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from core.records.exports import sealed_token
from core.sealed import unseal
from core.spec.export import ExportResult, PushResult, PushTarget
from worker.coroutines import CHECK_SECONDS, Interrupted
from worker.exports.upload import Upload
from worker.exports.workplace import Workplace

PAUSES_SECONDS = (2.0, 10.0, 30.0, 60.0)
"""Between tries while the hub is unavailable."""


def push(attempt: Workplace, target: PushTarget, built: ExportResult) -> PushResult:
    """Upload the files of the export in one commit; Interrupted if the attempt should stop.

    After a killed worker the upload is repeated. The hub makes no second commit of equal files.
    """
    token = _token(attempt)
    if isinstance(token, str):
        return PushResult(status="failed", repository=target.repository, reason=token)
    folder = _files(attempt, built)
    upload = Upload(
        folder=str(folder),
        repository=target.repository,
        private=target.private,
        token=token.get_secret_value(),
        message=f"Upload export {attempt.claim.id} of Tunesmith",
    )
    for pause in (*PAUSES_SECONDS, None):
        answer = _uploaded(attempt, upload)
        if not answer.get("may_pass") or pause is None:
            break
        _sleep(attempt, pause)
    if "error" in answer:
        reason = str(answer["error"])
        return PushResult(status="failed", repository=target.repository, reason=reason)
    return PushResult(
        status="succeeded",
        repository=target.repository,
        url=answer["url"],
        commit=answer["commit"],
    )


def _token(attempt: Workplace) -> SecretStr | str:
    """Return the token, or why there is none."""
    with attempt.database.reading() as session:
        sealed = sealed_token(session, attempt.claim)
    key = attempt.settings.engine_key
    token = None if sealed is None or key is None else unseal(sealed, key)
    if token is None:
        return (
            "The token cannot be read, because the service has another TUNESMITH_ENGINE_KEY than "
            "when the export was requested. Request it again."
        )
    return token


def _files(attempt: Workplace, built: ExportResult) -> Path:
    """Return the folder of the export: that of this attempt, or the stored archive, unpacked."""
    folder = attempt.folder / "export"
    if not folder.is_dir():
        archive = attempt.folder / "export.zip"
        attempt.store.fetch(built.content.key, archive)
        with zipfile.ZipFile(archive) as source:  # our own archive
            source.extractall(folder)
        archive.unlink()
    return folder


def _uploaded(attempt: Workplace, upload: Upload) -> dict[str, Any]:
    """Run the upload in a process of its own, and return its answer."""
    log = attempt.folder / "upload.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.exports.upload"],
            stdin=subprocess.PIPE,  # it ends with this process, which holds the other end
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(upload.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        while process.poll() is None:
            if attempt.should_stop():
                raise Interrupted
            time.sleep(CHECK_SECONDS)
        line = process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    if not line:
        return {"error": "The upload ended unexpectedly.", "may_pass": True}
    answer: dict[str, Any] = json.loads(line)
    return answer


def _sleep(attempt: Workplace, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if attempt.should_stop():
            raise Interrupted
        time.sleep(CHECK_SECONDS)
