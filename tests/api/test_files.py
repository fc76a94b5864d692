"""Uploading, finding, reading and deleting files."""

import io
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from core.records.files import add_file, new_file_key
from tests.api.fixtures import GOOD_ROWS
from tests.api.live import Api, running_api
from tests.api.upload_forms import FILE, PURPOSE, form, post_form, stored_blobs
from tests.contract.contract import CheckedClient


def test_uploaded_file_comes_back_byte_for_byte(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("my dätä.jsonl", GOOD_ROWS)}
    )
    file = answer.json()
    assert file["filename"] == "my dätä.jsonl"
    assert file["bytes"] == len(GOOD_ROWS)
    assert file["status"] == "processed"
    assert "status_details" not in file
    content = client.get(f"/v1/files/{file['id']}/content")
    assert content.content == GOOD_ROWS
    assert content.headers["content-disposition"].endswith("my%20d%C3%A4t%C3%A4.jsonl")
    assert client.get(f"/v1/files/{file['id']}").json() == file


@pytest.mark.parametrize("fields", [(FILE, PURPOSE), (PURPOSE, FILE)], ids=["first", "last"])
def test_fields_of_the_form_come_in_any_order(
    client: httpx.Client, fields: tuple[tuple[str, str, bytes], ...]
) -> None:
    assert post_form(client, form(*fields)).status_code == 200


def test_file_with_faults_is_kept_and_says_where_they_are(client: httpx.Client) -> None:
    faulty = b'{"messages": [\n' + GOOD_ROWS
    file = post_form(client, form(PURPOSE, (*FILE[:2], faulty))).json()
    assert file["status"] == "error"
    assert file["status_details"].startswith("line 1: ")


def test_empty_file_is_an_error_of_its_own(client: httpx.Client) -> None:
    file = post_form(client, form(PURPOSE, (*FILE[:2], b""))).json()
    assert (file["bytes"], file["status"]) == (0, "error")
    assert "is empty" in file["status_details"]


def parquet_rows() -> bytes:
    rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(40)]
    file = io.BytesIO()
    write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("filename", "content", "format_"),
    [
        ("data.csv", b"text,label\n" + b'"two\nlines",a\nHei,b\n' * 20, "classification"),
        ("data.parquet", parquet_rows(), "prompt-completion"),
        ("data.jsonl", b'{"prompt": "x", "chosen": "y", "rejected": "z"}\n' * 40, "preference"),
    ],
    ids=["csv", "parquet", "preference"],
)
def test_every_kind_of_file_is_checked_by_its_content(
    client: httpx.Client, filename: str, content: bytes, format_: str
) -> None:
    answer = client.post(
        "/v1/files", data={"purpose": "fine-tune"}, files={"file": (filename, content)}
    )
    file = answer.json()
    assert (file["status"], file["filename"]) == ("processed", filename)
    report = client.get(f"/v1/files/{file['id']}/report").json()
    assert (report["format"], report["rows"], report["fault_count"]) == (format_, 40, 0)
    assert client.get(f"/v1/files/{file['id']}/content").content == content


def test_report_says_what_was_found(client: httpx.Client, upload: Callable[..., str]) -> None:
    row = b'{"text": "Hei", "label": "b"}\n'
    file_id = upload(row + row + b'{"label": 1}')
    assert client.get(f"/v1/files/{file_id}/report").json() == {
        "object": "file.report",
        "file_id": file_id,
        "format": "classification",
        "rows": 2,
        "faults": [{"line": 3, "field": "text", "message": "text is missing; write a string"}],
        "fault_count": 1,
        "labels": ["b"],
        "multi_label": False,
        "duplicate_rows": 1,
        "duplicates": [{"line": 2, "first_line": 1}],
        "has_tools": False,
        "characters": 6,
        "longest_characters": 3,
        "longest_line": 1,
        "columns": {},
        "column_names": ["text", "label"],
        "unused_columns": [],
    }


def test_result_of_a_job_has_no_report(api: Api, client: httpx.Client) -> None:
    file_id, key = new_file_key()
    blob = api.state.store.write(key, [b"step,loss\n"])
    with api.database.writing() as session:
        add_file(
            session,
            file_id=file_id,
            project_id="default",
            filename="metrics.csv",
            purpose="fine-tune-results",
            bytes=blob.bytes,
            sha256=blob.sha256,
            blob_key=key,
            report=None,
        )
    answer = client.get(f"/v1/files/{file_id}/report")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "report_not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    {
        "no file": (form(PURPOSE), "file"),
        "no purpose": (form(FILE), "purpose"),
        "other purpose": (form(("purpose", "", b"assistants"), FILE), "purpose"),
        "other purpose last": (form(FILE, ("purpose", "", b"vision")), "purpose"),
        "two files": (form(FILE, FILE, PURPOSE), "file"),
        "unknown field": (form(FILE, PURPOSE, ("colour", "", b"red")), "colour"),
        "endless purpose": (form(("purpose", "", b"f" * 10_000), FILE), "purpose"),
        "cut short in the file": (form(PURPOSE, FILE)[:500], None),
        "cut short at the end": (form(PURPOSE, FILE, end=b""), None),
        "no form at all": (b"hello", None),
        "nothing": (b"", None),
    }.values(),
)
def test_wrong_form_is_refused_and_leaves_nothing_behind(
    api: Api, client: httpx.Client, body: bytes, param: str | None
) -> None:
    answer = post_form(client, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert stored_blobs(api) == []
    assert client.get("/v1/files").json()["data"] == []


def test_json_instead_of_a_form_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/files", json={"purpose": "fine-tune"})
    assert answer.status_code == 400
    assert "multipart/form-data" in answer.json()["error"]["message"]


def test_file_over_the_limit_is_refused(tmp_path: Path, sqlite_url: str) -> None:
    with (
        running_api(tmp_path, sqlite_url, max_file_bytes=1000) as api,
        CheckedClient(base_url=api.url) as client,
    ):
        answer = post_form(client, form(PURPOSE, FILE))
        assert answer.status_code == 413
        assert answer.json()["error"]["param"] == "file"
        assert stored_blobs(api) == []


def test_lists_are_pages_in_either_order(client: httpx.Client, upload: Callable[..., str]) -> None:
    ids = [upload() for _ in range(3)]
    newest_first = client.get("/v1/files", params={"limit": 2}).json()
    assert [file["id"] for file in newest_first["data"]] == [ids[2], ids[1]]
    assert newest_first["has_more"]
    assert (newest_first["first_id"], newest_first["last_id"]) == (ids[2], ids[1])
    rest = client.get("/v1/files", params={"limit": 2, "after": ids[1]}).json()
    assert [file["id"] for file in rest["data"]] == [ids[0]]
    assert not rest["has_more"]
    oldest_first = client.get("/v1/files", params={"order": "asc", "purpose": "fine-tune"}).json()
    assert [file["id"] for file in oldest_first["data"]] == ids
    assert client.get("/v1/files", params={"purpose": "fine-tune-results"}).json()["data"] == []


def test_deleted_file_is_gone_with_its_bytes(
    api: Api, client: httpx.Client, upload: Callable[..., str]
) -> None:
    file_id = upload()
    assert client.delete(f"/v1/files/{file_id}").json()["deleted"] is True
    assert stored_blobs(api) == []
    for answer in (
        client.get(f"/v1/files/{file_id}"),
        client.get(f"/v1/files/{file_id}/content"),
        client.delete(f"/v1/files/{file_id}"),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "file_id"


def test_file_of_an_open_job_is_not_deleted(
    client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job = client.get(f"/v1/fine_tuning/jobs/{create_job()}").json()
    answer = client.delete(f"/v1/files/{job['training_file']}")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "file_in_use"
    assert client.get(f"/v1/files/{job['training_file']}/content").content == GOOD_ROWS


ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"


def upload_with(client: httpx.Client, **fields: str) -> httpx.Response:
    form = {"purpose": "fine-tune"} | fields
    return client.post("/v1/files", data=form, files={"file": ("data.jsonl", GOOD_ROWS)})


def test_a_file_shows_when_it_expires(client: httpx.Client) -> None:
    file = upload_with(client, **{ANCHOR: "created_at", SECONDS: "3600"}).json()
    assert file["expires_at"] - file["created_at"] == 3600
    assert client.get(f"/v1/files/{file['id']}").json() == file
    assert "expires_at" not in upload_with(client).json()


def test_the_stock_client_can_let_a_file_expire(api: Api) -> None:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="any") as stock:
        file = stock.files.create(
            file=("data.jsonl", GOOD_ROWS),
            purpose="fine-tune",
            expires_after={"anchor": "created_at", "seconds": 86_400},
        )
    assert file.expires_at == file.created_at + 86_400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({ANCHOR: "created_at"}, SECONDS),
        ({SECONDS: "3600"}, ANCHOR),
        ({ANCHOR: "last_active_at", SECONDS: "3600"}, ANCHOR),
        ({ANCHOR: "created_at", SECONDS: "3599"}, SECONDS),
        ({ANCHOR: "created_at", SECONDS: "2592001"}, SECONDS),
        ({ANCHOR: "created_at", SECONDS: "3600.0"}, SECONDS),
        ({ANCHOR: "created_at", SECONDS: "-3600"}, SECONDS),
    ],
)
def test_a_wrong_expiry_is_refused_and_nothing_is_stored(
    api: Api, client: httpx.Client, fields: dict[str, str], param: str
) -> None:
    answer = upload_with(client, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert stored_blobs(api) == []


@pytest.mark.parametrize(
    ("fields", "meant"),
    [({"purpose": "fine_tune"}, "fine-tune"), ({"colums": "{}"}, "columns")],
)
def test_a_misspelling_in_the_form_comes_with_a_hint(
    client: httpx.Client, fields: dict[str, str], meant: str
) -> None:
    message = upload_with(client, **fields).json()["error"]["message"]
    assert message.endswith(f"Did you mean {meant!r}?")
