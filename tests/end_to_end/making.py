"""What users of a service ask for that makes or exports models, and wait for."""

import io
import zipfile
from pathlib import Path
from typing import Any

from openai import HttpxBinaryResponseContent, OpenAI

from tests.worker import workshop


def send(client: OpenAI, content: Any) -> str:
    return client.files.create(file=content, purpose="adapter").id  # type: ignore[arg-type]


def made(client: OpenAI, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Create an import or a soup, and return it once it has ended."""
    created: dict[str, Any] = client.post(path, body=body, cast_to=object)  # type: ignore[assignment]
    return ended(client, f"{path}/{created['id']}")


def ended(client: OpenAI, path: str) -> dict[str, Any]:
    """Return an import, a soup or an export once it has ended."""
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        nonlocal found
        found = client.get(path, cast_to=object)  # type: ignore[assignment]
        return found["status"] in ("succeeded", "failed")

    workshop.wait_until(has_ended, f"{path} ends")
    return found


def exported(client: OpenAI, model: str, folder: Path, **body: str) -> dict[str, Any]:
    """Export a model, and unpack its files into `folder`."""
    created: dict[str, Any] = client.post(f"/models/{model}/exports", body=body, cast_to=object)  # type: ignore[assignment]
    found = ended(client, f"/exports/{created['id']}")
    assert found["status"] == "succeeded", found["error"]
    path = f"/exports/{created['id']}/content"
    content = client.get(path, cast_to=HttpxBinaryResponseContent).read()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    return found
