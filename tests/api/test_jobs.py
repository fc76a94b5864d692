"""Creating, finding and cancelling jobs; their events, checkpoints and adapters."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.catalog.learning_rate import base_learning_rate
from core.records.outbox import due
from core.records.tables import OutboxMessage
from core.spec.objective import SupervisedSpec
from core.spec.strategy import LoraSpec
from core.tasks.kinds import JOB, Work
from tests.api import as_worker
from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"
TINY_WIDTH = 256


def waiting_messages(api: Api) -> int:
    return len(list((api.folder / "broker" / "messages").glob("*.msg")))


def test_new_job_shows_what_will_run(api: Api, client: httpx.Client, dataset: str) -> None:
    body = {
        "model": "tunesmith/tiny",
        "training_file": dataset,
        "suffix": "my-suffix",
        "seed": 5,
        "metadata": {"team": "red"},
        "method": {
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}},
        },
        "strategy": {"type": "lora", "r": 4, "lora_alpha": 8, "target_modules": "query-value"},
        "training": {"learning_rate": 1e-3, "max_seq_length": 64},
    }
    job = client.post(JOBS, json=body).json()
    assert job["status"] == "validating_files"
    assert job["model"] == job["requested_model"] == "tunesmith/tiny"
    own = base_learning_rate(LoraSpec(rank=4, alpha=8), SupervisedSpec(), TINY_WIDTH, steps=40)
    multiplier = pytest.approx(1e-3 / own, rel=1e-5)
    expected = {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": multiplier}
    assert job["hyperparameters"] == expected
    assert job["method"]["supervised"]["hyperparameters"] == expected
    assert (job["seed"], job["metadata"]) == (5, {"team": "red"})
    assert (
        job["strategy"] | {"rank": 4, "alpha": 8.0, "target_modules": "query-value"}
        == (job["strategy"])
    )
    assert (job["training"]["learning_rate"], job["training"]["max_length"]) == (1e-3, 64)
    assert job["progress"] == {"step": 0, "total_steps": None}
    assert client.get(f"{JOBS}/{job['id']}").json() == job
    assert waiting_messages(api) == 1


def test_older_hyperparameters_field_is_read(
    client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job(hyperparameters={"n_epochs": 7, "learning_rate_multiplier": 0.5})
    job = client.get(f"{JOBS}/{job_id}").json()
    assert job["hyperparameters"]["n_epochs"] == 7
    steps = 7 * -(-40 // job["hyperparameters"]["batch_size"])
    own = base_learning_rate(LoraSpec(), SupervisedSpec(), TINY_WIDTH, steps)
    assert job["hyperparameters"]["learning_rate_multiplier"] == 0.5
    assert job["training"]["learning_rate"] == pytest.approx(own / 2)


def test_seed_is_made_up_and_told(client: httpx.Client, create_job: Callable[..., str]) -> None:
    seeds = [client.get(f"{JOBS}/{create_job()}").json()["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]


HYPERPARAMETERS = "method.supervised.hyperparameters"


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "tunesmith/tinny"}, "model"),
        ({"model": "ft:tunesmith/tiny:default::12345678"}, "model"),
        ({"model": 3}, "model"),
        ({"training_file": "file-missing"}, "training_file"),
        ({"validation_file": "file-missing"}, "validation_file"),
        (supervised(n_epochs=-1), f"{HYPERPARAMETERS}.n_epochs"),
        (supervised(n_epochs="many"), f"{HYPERPARAMETERS}.n_epochs"),
        (supervised(batch_size=10**12), f"{HYPERPARAMETERS}.batch_size"),
        (supervised(learning_rate_multiplier=0), f"{HYPERPARAMETERS}.learning_rate_multiplier"),
        (supervised(epochs=3), f"{HYPERPARAMETERS}.epochs"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 2}, **supervised(n_epochs=3)}, "hyperparameters"),
        ({"training": {"epochs": 2}, **supervised(n_epochs=3)}, "training.epochs"),
        ({"training": {"epochs": 51}}, "training.epochs"),
        ({"training": {"batch_size": 257}}, "training.batch_size"),
        ({"training": {"max_length": 10_000}}, "training.max_length"),
        ({"training": {"colour": 1}}, "training.colour"),
        ({"strategy": {"rank": 0}}, "strategy.rank"),
        ({"strategy": {"type": "lora", "r": 10**12}}, "strategy.r"),
        ({"strategy": {"type": "magic"}}, "strategy.type"),
        ({"strategy": {"target_modules": "everything"}}, "strategy.target_modules"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {}}}}, "method.type"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {}}, "method.type"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"suffix": "模型"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        (supervised(n_epochs="3"), f"{HYPERPARAMETERS}.n_epochs"),
        (supervised(n_epochs=3.0), f"{HYPERPARAMETERS}.n_epochs"),
        ({"training": {"batch_size": 4.0}}, "training.batch_size"),
        ({"training": {"deduplicate": 1}}, "training.deduplicate"),
        ({"strategy": {"rank": "8"}}, "strategy.rank"),
        ({"seed": 2**31}, "seed"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"n_epochs": 3}, "n_epochs"),
    ],
)
def test_wrong_field_is_named_and_no_job_is_made(
    api: Api,
    client: httpx.Client,
    dataset: str,
    change: dict[str, Any],
    param: str,
) -> None:
    good = {"model": "tunesmith/tiny", "training_file": dataset}
    answer = client.post(JOBS, json=good | change)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param
    assert client.get(JOBS).json()["data"] == []
    assert waiting_messages(api) == 0


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        (b'{"messages": [\n', "line 1"),
        (b'{"messages": [{"role": "usr", "content": "a"}]}\n', "messages[0].role"),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', "assistant"),
        (b"", "is empty"),
    ],
    ids=["broken JSON", "unknown role", "nothing to train", "empty"],
)
def test_faulty_file_trains_nothing(
    client: httpx.Client, upload: Callable[..., str], dataset: str, content: bytes, clue: str
) -> None:
    faulty = upload(content)
    for param in ("training_file", "validation_file"):
        files = {"training_file": dataset, param: faulty}
        answer = client.post(JOBS, json={"model": "tunesmith/tiny", **files})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, param)
        assert clue in error["message"]
    assert client.get(JOBS).json()["data"] == []


def test_results_file_is_no_dataset(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    as_worker.succeed(api, as_worker.start(api))
    results = client.get(f"{JOBS}/{job_id}").json()["result_files"][0]
    answer = client.post(JOBS, json={"model": "tunesmith/tiny", "training_file": results})
    assert answer.json()["error"]["code"] == "invalid_file_purpose"


def test_lists_filter_by_metadata(client: httpx.Client, create_job: Callable[..., str]) -> None:
    both = create_job(metadata={"team": "red", "run": "1"})
    red = create_job(metadata={"team": "red"})
    none = create_job()

    def found(query: str) -> list[str]:
        return [job["id"] for job in client.get(f"{JOBS}?{query}").json()["data"]]

    assert found("") == [none, red, both]
    assert found("metadata[team]=red") == [red, both]
    assert found("metadata[team]=red&metadata[run]=1") == [both]
    assert found("metadata[team]=blue") == []
    assert found("metadata=null") == [none]
    assert found(f"limit=1&after={none}") == [red]
    assert found("&".join(f"metadata[{i}]=a" for i in range(16))) == []


def test_filter_with_more_pairs_than_a_job_carries_is_refused(client: httpx.Client) -> None:
    answer = client.get(JOBS, params={f"metadata[{i}]": "a" for i in range(17)})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")


def test_cancelled_job_cannot_be_cancelled_again(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    held = as_worker.start(api)
    job = client.post(f"{JOBS}/{job_id}/cancel").json()
    assert job["status"] == "cancelled"
    assert job["finished_at"] is not None
    again = client.post(f"{JOBS}/{job_id}/cancel")
    assert again.status_code == 409
    assert again.json()["error"]["param"] == "fine_tuning_job_id"
    assert "already ended (cancelled)" in again.json()["error"]["message"]
    assert client.get(f"{JOBS}/{job_id}").json() == job
    with pytest.raises(Exception, match="has ended"):
        as_worker.succeed(api, held)


def test_unknown_job_is_not_found(client: httpx.Client) -> None:
    for method, path in [
        ("GET", ""),
        ("POST", "/cancel"),
        ("GET", "/events"),
        ("GET", "/events?stream=true"),
        ("GET", "/checkpoints"),
        ("GET", "/adapter"),
    ]:
        answer = client.request(method, f"{JOBS}/ftjob-missing{path}")
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "fine_tuning_job_id"


def test_finished_job_tells_everything(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job(suffix="mine")
    held = as_worker.start(api)
    running = client.get(f"{JOBS}/{job_id}").json()
    assert running["status"] == "running"
    assert running["progress"] == {"step": 0, "total_steps": 10}
    tuned = as_worker.succeed(api, held)
    job = client.get(f"{JOBS}/{job_id}").json()
    assert job["status"] == "succeeded"
    assert job["fine_tuned_model"] == tuned
    assert tuned.startswith("ft:tunesmith/tiny:default:mine:")
    assert (job["trained_tokens"], job["error"]) == (1234, None)
    content = client.get(f"/v1/files/{job['result_files'][0]}/content")
    assert content.text.startswith("step,train_loss")


def test_failed_job_says_why(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    as_worker.fail(api, as_worker.start(api))
    job = client.get(f"{JOBS}/{job_id}").json()
    assert job["status"] == "failed"
    assert job["error"]["code"] == "loss_nonfinite"
    answer = client.get(f"{JOBS}/{job_id}/adapter")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "adapter_not_found")


def test_events_are_pages_newest_first(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    as_worker.start(api)
    page = client.get(f"{JOBS}/{job_id}/events", params={"limit": 2}).json()
    assert [event["message"] for event in page["data"]] == ["Step 1", "Fine-tuning job started"]
    assert page["data"][0]["data"] == {"step": 1, "total_steps": 10, "train_loss": 2.0}
    assert page["has_more"]
    rest = client.get(f"{JOBS}/{job_id}/events", params={"after": page["last_id"]}).json()
    assert len(rest["data"]) == 3
    assert rest["data"][-1]["message"] == f"Created fine-tuning job: {job_id}"
    start = page["last_id"].rpartition("-")[0]
    for stranger in (
        "ftevent-other-1",
        page["last_id"] + "0",
        f"{start}-0",
        f"{start}-{'0' * 9}1{'9' * 30}",
        f"{start}-{'9' * 5000}",
        "x",
    ):
        answer = client.get(f"{JOBS}/{job_id}/events", params={"after": stranger})
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "after")


def stream_of(
    client: httpx.Client, job_id: str, *, last_event_id: str | None = None
) -> list[tuple[int, dict[str, Any]]]:
    headers = {} if last_event_id is None else {"last-event-id": last_event_id}
    text = client.get(f"{JOBS}/{job_id}/events", params={"stream": "true"}, headers=headers).text
    events = []
    for block in text.strip().split("\n\n"):
        number, data = block.split("\n")
        events.append((int(number.removeprefix("id: ")), json.loads(data.removeprefix("data: "))))
    return events


def test_stream_of_events_ends_with_the_job_and_goes_on_where_it_broke_off(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    as_worker.succeed(api, as_worker.start(api))
    events = stream_of(client, job_id)
    assert [number for number, _ in events] == [1, 2, 3, 4, 5, 6]
    assert events[-1][1]["message"] == "The job has successfully completed"
    page = client.get(f"{JOBS}/{job_id}/events").json()["data"]
    assert [event for _, event in events] == page[::-1]
    assert stream_of(client, job_id, last_event_id="4") == events[4:]
    answer = client.get(f"{JOBS}/{job_id}/events?stream=true", headers={"last-event-id": "9" * 30})
    assert answer.status_code == 400


def test_stream_of_events_is_live(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    with client.stream("GET", f"{JOBS}/{job_id}/events?stream=true") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        seen = ""
        while "Validating files" not in seen:
            seen = next(lines)
        held = as_worker.start(api)
        while "Fine-tuning job started" not in seen:
            seen = next(lines)
        as_worker.fail(api, held)
        rest = [line for line in lines if line.startswith("data: ")]
    assert json.loads(rest[-1].removeprefix("data: "))["level"] == "error"


def test_checkpoints_are_listed_and_downloaded(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    held = as_worker.start(api)
    for step in (5, 10):
        as_worker.save_checkpoint(api, held, step)
    page = client.get(f"{JOBS}/{job_id}/checkpoints", params={"limit": 1}).json()
    assert [checkpoint["step_number"] for checkpoint in page["data"]] == [10]
    assert page["has_more"]
    older = client.get(f"{JOBS}/{job_id}/checkpoints", params={"after": page["last_id"]}).json()
    (checkpoint,) = older["data"]
    expected = {"step": 5.0, "train_loss": 1.5, "train_mean_token_accuracy": 0.5}
    assert checkpoint["metrics"] == expected
    assert checkpoint["fine_tuned_model_checkpoint"].endswith(":ckpt-step-5")
    archive = client.get(f"{JOBS}/{job_id}/adapter", params={"step": 5})
    assert "step-5" in manifest(archive)["key"]
    missing = client.get(f"{JOBS}/{job_id}/adapter", params={"step": 7})
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "step")


def manifest(answer: httpx.Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return json.loads(archive.read("manifest.json"))  # type: ignore[no-any-return]


def test_adapter_comes_when_the_job_is_done(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    held = as_worker.start(api)
    early = client.get(f"{JOBS}/{job_id}/adapter")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "adapter_not_ready")
    tuned = as_worker.succeed(api, held)
    archive = client.get(f"{JOBS}/{job_id}/adapter")
    assert manifest(archive)["key"].endswith("final.zip")
    assert f"{job_id}-adapter.zip" in archive.headers["content-disposition"]
    client.delete(f"/v1/models/{tuned}")
    assert client.get(f"{JOBS}/{job_id}/adapter").status_code == 404


def test_lost_wake_up_is_left_to_the_outbox(
    api: Api,
    client: httpx.Client,
    create_job: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(work: Work) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr(api.state.broker, "wake", broken)
    job_id = create_job()
    with api.database.reading() as session:
        assert due(session) == []  # not before its time
        message = session.get(OutboxMessage, (JOB, job_id))
        assert message is not None
