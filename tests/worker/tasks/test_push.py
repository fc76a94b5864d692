"""Exports are pushed to a hub: in one commit, with a token that nobody sees."""

import threading
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from pydantic import SecretStr

from core.records import exports, tasks
from core.sealed import seal, unseal
from core.spec.export import ExportResult, PushTarget
from core.tasks.kinds import Queue
from tests.hub_uploads import TOKEN, UploadHub, running_upload_hub
from tests.worker.killed_attempts import Killed
from tests.worker.tasks.exporting import (
    WEIGHTS,
    export_of,
    pretending_children,
    request_export,
    tuned_model,
)
from tests.worker.workshop import Workshop
from worker.context import Worker
from worker.exports import push
from worker.tasks.desk import TaskDesk, run_attempt

KEY = SecretStr("of the operator")
TARGET = PushTarget(repository="me/model", private=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(push, "PAUSES_SECONDS", (0.01,))
    with running_upload_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def worker_of(workshop: Workshop, key: SecretStr = KEY) -> Worker:
    settings = workshop.settings().model_copy(update={"engine_key": key})
    return Worker(settings, workshop.database, workshop.store, threading.Event())


def pushed(
    workshop: Workshop, key: SecretStr = KEY, token: str = TOKEN
) -> tuple[str, ExportResult]:
    sealed = seal(SecretStr(token), KEY)
    export_id = request_export(workshop, tuned_model(workshop), sealed, push_to=TARGET)
    with pretending_children():
        TaskDesk(worker_of(workshop, key), Queue.LIGHT).run_waiting()
    task = export_of(workshop, export_id)
    assert task.error is None, task.error
    return export_id, ExportResult.model_validate(task.result)


def test_an_export_is_pushed_in_one_commit_and_its_token_forgotten(workshop, hub, caplog):
    _, result = pushed(workshop)
    assert result.push.status == "succeeded", result.push.reason
    assert (result.push.url, result.push.repository) == (f"{hub.url}/me/model", "me/model")
    (files,) = hub.commits["me/model"]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert files["model.safetensors"] == WEIGHTS and hub.private["me/model"]
    everything = [p.read_bytes() for p in workshop.folder.rglob("*") if p.is_file()]
    assert not any(TOKEN.encode() in content for content in everything)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("mood", "reason"),
    [({"status": 403}, "refuses the token"), ({"status": 422}, "status 422")],
)
def test_a_push_that_the_hub_refuses_leaves_the_export(workshop, hub, mood, reason):
    for name, value in mood.items():
        setattr(hub, name, value)
    _, result = pushed(workshop)
    assert result.push.status == "failed" and reason in result.push.reason
    assert workshop.store.exists(result.content.key)


def test_a_wrong_token_is_told(workshop, hub):
    _, result = pushed(workshop, token="hf_wrong")
    assert result.push.status == "failed" and "refuses the token" in result.push.reason
    assert "hf_wrong" not in result.model_dump_json()


def test_a_push_is_repeated_while_the_hub_fails(workshop, hub):
    hub.failures = [500]
    _, result = pushed(workshop)
    assert result.push.status == "succeeded", result.push.reason
    assert len(hub.commits["me/model"]) == 1


def test_a_token_of_another_key_is_told(workshop, hub):
    _, result = pushed(workshop, key=SecretStr("after a restart"))
    assert result.push.status == "failed" and "TUNESMITH_ENGINE_KEY" in result.push.reason
    assert hub.commits == {}


def test_after_a_kill_during_the_push_nothing_is_written_again(workshop, hub):
    sealed = seal(SecretStr(TOKEN), KEY)
    export_id = request_export(workshop, tuned_model(workshop), sealed, push_to=TARGET)
    with workshop.database.writing() as session:
        claim = tasks.claim_next(session, "worker-dead", [exports.EXPORT])
    with (
        pretending_children() as steps,
        patch("worker.tasks.export.push", side_effect=Killed),
        pytest.raises(Killed),
    ):
        run_attempt(worker_of(workshop), claim)
    with workshop.database.writing() as session:
        tasks.rescue_expired(session, worker_id="worker-dead")
    with pretending_children() as again:
        TaskDesk(worker_of(workshop), Queue.LIGHT).run_waiting()
    assert len(steps) == 3 and again == []
    result = ExportResult.model_validate(export_of(workshop, export_id).result)
    assert result.push.status == "succeeded" and len(hub.commits["me/model"]) == 1
    assert workshop.blobs("exports") == {result.content.key}


def test_what_is_sealed_needs_its_key():
    sealed = seal(SecretStr("secret"), KEY)
    assert "secret" not in sealed and sealed != seal(SecretStr("secret"), KEY)
    assert unseal(sealed, KEY) == SecretStr("secret")
    assert unseal(sealed, SecretStr("other")) is None
