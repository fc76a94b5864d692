"""Uploads a folder to a repository of the hub: `python -m worker.exports.upload`, a process of its
own, so that nothing waits for the hub and the upload can be stopped at any time.

It reads one JSON object from the first line of its stdin, which also has the token: arguments and
environment of a process can be read by others. It ends with its parent, which holds the stdin, and
answers with one JSON line: url and commit, or the error and whether another try may help.

The address of the hub is the operator's (HF_ENDPOINT), never that of a request.
"""

import json
import os
import sys
import threading
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import disable_progress_bars

from core.spec.base import Spec


class Upload(Spec):
    """What is uploaded, and where."""

    folder: str
    repository: str
    private: bool
    token: str
    message: str


def main() -> None:
    upload = Upload.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # with Xet, a large folder would become several commits, of which a killed upload leaves some
    constants.HF_HUB_DISABLE_XET = True
    disable_progress_bars()
    try:
        answer = _send(upload)
    except Exception as error:
        answer = _explained(upload, error)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _send(upload: Upload) -> dict[str, Any]:
    """Create the repository if it is missing, and add all files in one commit."""
    api = HfApi(token=upload.token)
    api.create_repo(upload.repository, private=upload.private, exist_ok=True)
    info = api.upload_folder(
        repo_id=upload.repository, folder_path=upload.folder, commit_message=upload.message
    )
    return {"url": f"{api.endpoint}/{upload.repository}", "commit": info.oid}


def _explained(upload: Upload, error: Exception) -> dict[str, Any]:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled):
        return {"error": "The worker may not use the hub (HF_HUB_OFFLINE).", "may_pass": False}
    if status in (401, 403):
        return {
            "error": f"The hub refuses the token for {upload.repository} with status {status}. "
            "Use one with write access to the repository.",
            "may_pass": False,
        }
    if status is not None and 400 <= status < 500 and status not in (408, 409, 412, 429):
        return {"error": f"The hub answered with status {status}.", "may_pass": False}
    said = f"status {status}" if status is not None else type(error).__name__
    return {"error": f"The hub could not be reached, or failed: {said}.", "may_pass": True}


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
