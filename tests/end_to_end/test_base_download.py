"""A base that must be downloaded first, from the request for a job to an answer of its model."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.end_to_end.service import (
    Service,
    messages_of,
    running_service,
    submit,
    upload,
    wait_until,
)
from tests.hub import FakeHub, repository_of, running_hub

TINY = Path(__file__).parents[2] / "core" / "models" / "tiny"
ALIAS = "gpt-4o-mini-2024-07-18"
CATALOG = f"""
[[bases]]
id = "acme/hub-tiny"
source = "acme/hub-tiny"
aliases = ["{ALIAS}"]

[[bases]]
id = "acme/gone"
source = "./gone"
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub whose weights wait for its gate."""
    with running_hub() as hub:
        hub.repositories["acme/hub-tiny"] = repository_of(TINY)
        hub.gate.clear()
        yield hub


@pytest.fixture
def service(tmp_path: Path, hub: FakeHub) -> Iterator[Service]:
    (tmp_path / "catalog.toml").write_text(CATALOG)
    settings = {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub.url,
        "TUNESMITH_CATALOG_FILE": str(tmp_path / "catalog.toml"),
    }
    try:
        with running_service(tmp_path / "data", settings) as service:
            yield service
    finally:
        shutil.rmtree(tmp_path / "hf", ignore_errors=True)


def test_job_waits_for_its_base_and_holds_nobody_up(
    service: Service, hub: FakeHub, tmp_path: Path
) -> None:
    client = service.client
    assert [model.id for model in client.models.list().data] == ["tunesmith/tiny"]

    began_at = time.monotonic()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=ALIAS, messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "base_missing"
    assert time.monotonic() - began_at < 10  # huggingface_hub alone would take 23 s or more

    rows = [
        [{"role": "user", "content": str(i)}, {"role": "assistant", "content": "a"}]
        for i in range(8)
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    file_id = upload(client, path)
    with pytest.raises(openai.NotFoundError) as caught:
        client.fine_tuning.jobs.create(model="acme/gone", training_file=file_id)
    assert caught.value.code == "base_missing"

    waiting = submit(client, file_id, epochs=1, model=ALIAS)
    other = submit(client, file_id, epochs=1)
    wait_until(client, other.id, "succeeded")
    assert client.fine_tuning.jobs.retrieve(waiting.id).status == "validating_files"
    messages = messages_of(client, waiting.id)
    assert "Waiting for the download of acme/hub-tiny." in messages
    assert any(message.startswith("Downloading acme/hub-tiny: ") for message in messages)

    hub.gate.set()
    done = wait_until(client, waiting.id, "succeeded")
    assert done.model == "acme/hub-tiny"
    assert done.fine_tuned_model is not None
    assert done.fine_tuned_model.startswith(f"ft:{ALIAS}:default:test:")
    assert "acme/hub-tiny is downloaded." in messages_of(client, waiting.id)
    for model in (done.fine_tuned_model, ALIAS):
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=2
        )
        assert answer.choices[0].message.content is not None
    assert "acme/hub-tiny" in [model.id for model in client.models.list().data]
