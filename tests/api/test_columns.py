"""Columns with names of their own, on uploads and on jobs; what a job says of its files."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.records.tables import Job, Task
from core.spec.job import JobSpec
from core.spec.mask import MaskRequest
from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"
QA = {"instruction": "question", "output": "answer"}
ROWS = b"".join(
    json.dumps({"question": f"{n}+1?", "answer": str(n + 1), "level": n}).encode() + b"\n"
    for n in range(10)
)


def uploaded(client: httpx.Client, content: bytes = ROWS, **form: str) -> dict[str, Any]:
    answer = client.post(
        "/v1/files",
        data={"purpose": "fine-tune", **form},
        files={"file": ("rows.jsonl", content)},
    )
    assert answer.status_code == 200, answer.text
    file: dict[str, Any] = answer.json()
    return file


def asked(client: httpx.Client, path: str = JOBS, **body: Any) -> httpx.Response:
    return client.post(path, json={"model": "tunesmith/tiny", **body})


def spec_of(api: Api, job_id: str) -> JobSpec:
    with api.database.reading() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return JobSpec.model_validate(job.spec)


def events_of(client: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = client.get(f"{JOBS}/{job_id}/events").json()["data"]
    return events


def test_a_file_of_unknown_shape_is_kept_and_advised_on(client: httpx.Client) -> None:
    file = uploaded(client)
    assert file["status"] == "error"
    assert f"for example with columns {json.dumps(QA)}" in file["status_details"]
    assert client.get(f"/v1/files/{file['id']}/content").content == ROWS


def test_a_job_reads_such_a_file_with_its_own_columns(api: Api, client: httpx.Client) -> None:
    file = uploaded(client)
    answer = asked(client, training_file=file["id"], columns=QA)
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert job["columns"] == QA == spec_of(api, job["id"]).columns
    told = [event for event in events_of(client, job["id"]) if "not used" in event["message"]]
    assert [event["message"] for event in told] == [
        "Columns of the training file that are not used: level."
    ]
    assert told[0]["data"] == {"file": file["id"], "unused_columns": ["level"]}


def test_the_columns_of_an_upload_are_those_of_its_jobs(api: Api, client: httpx.Client) -> None:
    file = uploaded(client, columns=json.dumps(QA))
    assert file["status"] == "processed"
    assert file["unused_columns"] == ["level"]
    report = client.get(f"/v1/files/{file['id']}/report").json()
    assert (report["format"], report["columns"]) == ("instruction", QA)
    job = asked(client, training_file=file["id"]).json()
    assert spec_of(api, job["id"]).columns == QA
    refused = asked(client, training_file=file["id"], columns={})
    assert refused.status_code == 400
    assert "match no known format" in refused.json()["error"]["message"]


def test_a_mask_audit_takes_columns_too(api: Api, client: httpx.Client) -> None:
    file = uploaded(client)
    answer = asked(client, "/v1/fine_tuning/masks", training_file=file["id"], columns=QA)
    assert answer.status_code == 200, answer.text
    with api.database.reading() as session:
        audit = session.get(Task, answer.json()["id"])
        assert audit is not None
        assert MaskRequest.model_validate(audit.payload).spec.columns == QA


@pytest.mark.parametrize(
    ("columns", "param", "words"),
    [
        ({**QA, "output": "anwser"}, "columns.output", "the closest match is 'answer'"),
        ({**QA, "output": "zzz"}, "columns.output", "its columns are question, answer, level"),
        ({"instuction": "question"}, "columns", "the closest match is 'instruction'"),
        ({"prompt": 3}, "columns.prompt", "string"),
        ({"prompt": ""}, "columns.prompt", "write a column name"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(
    client: httpx.Client, columns: dict[str, Any], param: str, words: str
) -> None:
    answer = asked(client, training_file=uploaded(client)["id"], columns=columns)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


def test_faults_under_a_mapping_name_several_lines(client: httpx.Client) -> None:
    rows = b'{"question": "1+1?", "answer": ""}\n' * 7
    answer = asked(client, training_file=uploaded(client, rows)["id"], columns=QA)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_training_file")
    for line in (1, 2, 3, 4, 5):
        assert f"line {line}: answer is an empty string" in error["message"]
    assert "and 2 more" in error["message"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("{", "columns must be a JSON object that maps keys"),
        ('{"prompt": 1}', "columns must be a JSON object that maps keys"),
        ('{"promt": "q"}', "the closest match is 'prompt'"),
        ('{"prompt": "' + "q" * 9000 + '"}', "is longer than 8192 bytes"),
    ],
)
def test_an_upload_with_no_proper_mapping_is_refused(
    client: httpx.Client, columns: str, words: str
) -> None:
    data = {"purpose": "fine-tune", "columns": columns}
    answer = client.post("/v1/files", data=data, files={"file": ("rows.jsonl", ROWS)})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "columns"
    assert words in answer.json()["error"]["message"]


def test_a_validation_file_needs_the_same_columns(client: httpx.Client) -> None:
    other = uploaded(client, b'{"instruction": "1+1?", "output": "2"}\n')
    answer = asked(
        client, training_file=uploaded(client)["id"], validation_file=other["id"], columns=QA
    )
    assert answer.status_code == 400
    assert "does not fit the validation file" in answer.json()["error"]["message"]


@pytest.mark.parametrize("again", [False, True], ids=["same file", "same content"])
def test_validating_on_the_training_file_is_warned_of(
    client: httpx.Client, dataset: str, upload: Callable[..., str], again: bool
) -> None:
    other = upload() if again else dataset
    job = asked(client, training_file=dataset, validation_file=other).json()
    warned = [event for event in events_of(client, job["id"]) if event["level"] == "warn"]
    assert len(warned) == 1
    assert "set evaluation.split" in warned[0]["message"]
    assert warned[0]["data"] == {"validation_equals_training": True}


def test_files_that_differ_are_not_warned_of(
    client: httpx.Client, dataset: str, upload: Callable[..., str]
) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    other = upload(json.dumps({"messages": messages}).encode())
    job = asked(client, training_file=dataset, validation_file=other).json()
    assert [event["level"] for event in events_of(client, job["id"])] == ["info", "info"]
