"""Distillations over HTTP: from prompts to the job, what is kept and what is refused."""

import csv
import io
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.records.tables import DistillationRow, Task
from tests.api import as_worker
from tests.api.distilling import (
    EXACT,
    ROUTE,
    body_of,
    candidates,
    content,
    create,
    look,
    prompts,
    said,
    worked,
)
from tests.api.evaluating import upload as upload_lines
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine

JOBS = "/v1/fine_tuning/jobs"
LABELLED = {
    "messages": [
        {"role": "user", "content": "by hand"},
        {"role": "assistant", "content": "first", "weight": 0},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "labelled"},
    ]
}


def test_a_teacher_answers_and_a_job_trains_on_what_passes(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    source = prompts("hello", said("No."), "fail", "again")
    created = create(
        client,
        source,
        filter={"graders": [EXACT]},
        max_failed_share=0.3,
        sampling={"temperature": 0.5, "max_completion_tokens": 50, "seed": 7},
        metadata={"k": "v"},
    )
    assert (created["status"], created["teacher"]) == ("queued", "tunesmith/tiny")
    assert (created["training_file"], created["job_id"]) == (None, None)
    assert created["prompts"] == {"type": "file_content"} and created["metadata"] == {"k": "v"}
    found = worked(api, client, created)
    assert (found["status"], found["error"]) == ("training", None), found
    assert found["asking"] == {"total": 4, "asked": 4, "answered": 3, "failed": 1}
    assert found["filtering"] == {"kept": 2, "dropped": 1, "rows": 2}
    assert found["reasons"] == {"grader:exact": 1, "out_of_memory": 1}
    assert found["usage"][0]["invocation_count"] == 3

    rows = content(client, found["training_file"])
    assert [row["messages"][0]["content"] for row in rows] == ["hello", "again"]
    assert all(row["messages"][1] == {"role": "assistant", "content": ANSWER} for row in rows)
    file = client.get(f"/v1/files/{found['training_file']}").json()
    assert (file["purpose"], file["status"]) == ("fine-tune", "processed")
    job = client.get(f"{JOBS}/{found['job_id']}").json()
    assert (job["training_file"], job["model"]) == (found["training_file"], "tunesmith/tiny")
    asked = [request.sampling for request in engine.requests]
    assert {(each.temperature, each.max_tokens, each.seed) for each in asked} == {(0.5, 50, 7)}
    assert all(request.background for request in engine.requests)

    by_prompt = {each["prompt"]: each for each in candidates(client, created)}
    assert [by_prompt[at]["status"] for at in range(4)] == ["kept", "dropped", "failed", "kept"]
    assert by_prompt[1]["message"]["content"] == "No."
    assert by_prompt[1]["scores"] == [
        {"name": "exact", "score": 0.0, "passed": False, "error": None}
    ]
    assert by_prompt[2]["reason"]["code"] == "out_of_memory"


def test_the_job_is_the_one_that_its_file_would_get(api: Api, client: httpx.Client) -> None:
    job = {
        "model": "tunesmith/tiny",
        "seed": 3,
        "strategy": {"type": "lora", "rank": 4},
        "training": {"max_length": 64},
        "metadata": {"of": "distillation"},
    }
    found = worked(api, client, create(client, prompts(*map(str, range(50))), job=job))
    made = client.get(f"{JOBS}/{found['job_id']}").json()
    usual = client.post(JOBS, json=job | {"training_file": found["training_file"]}).json()
    own = ("id", "created_at")
    assert {k: v for k, v in made.items() if k not in own} == {
        k: v for k, v in usual.items() if k not in own
    }
    assert made["hyperparameters"]["batch_size"] == 3  # of 50 rows
    events = client.get(f"{JOBS}/{made['id']}/events").json()["data"]
    assert any(found["id"] in event["message"] for event in events)


def test_status_verdict_and_error_follow_the_job(api: Api, client: httpx.Client) -> None:
    found = worked(api, client, create(client, prompts("a", "b")))
    claim = as_worker.start(api)
    assert look(client, found)["status"] == "training"
    model = as_worker.succeed(api, claim)
    ended = look(client, found)
    assert (ended["status"], ended["fine_tuned_model"]) == ("succeeded", model)
    assert ended["finished_at"] is not None
    assert client.get(ROUTE).json()["data"] == [ended]
    assert client.post(f"{ROUTE}/{found['id']}/cancel").status_code == 409


def test_best_of_several_answers_is_kept_and_none_is_thrown_away(
    api: Api, client: httpx.Client
) -> None:
    likes = {**EXACT, "name": "seed", "reference": "44", "operation": "eq"}
    created = create(
        client,
        prompts("say the seed"),
        sampling={"n": 4, "seed": 42},
        filter={"graders": [likes], "keep": 1},
    )
    found = worked(api, client, created)
    assert found["filtering"] == {"kept": 1, "dropped": 0, "rows": 1}
    lines = candidates(client, created)
    assert [line["message"]["content"] for line in lines] == ["42", "43", "44", "45"]
    assert [line["status"] for line in lines] == ["dropped", "dropped", "kept", "dropped"]
    text = client.get(f"{ROUTE}/{created['id']}/candidates?format=csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["seed.passed"] for row in rows] == ["false", "false", "true", "false"]
    assert [row["answer"] for row in rows] == ["42", "43", "44", "45"]
    assert rows[0]["reason"] == "grader:seed" and rows[0]["question"] == "say the seed"


def test_labelled_rows_are_mixed_in_and_files_are_kept_until_the_job(
    api: Api, client: httpx.Client
) -> None:
    labelled = upload_lines(client, [LABELLED], purpose="fine-tune")["id"]
    items = [{"item": {"messages": [{"role": "user", "content": "q"}]}}]
    asked = upload_lines(client, items)["id"]
    created = create(client, {"type": "file_id", "id": asked}, labelled_file=labelled)
    for file_id in (labelled, asked):
        error = client.delete(f"/v1/files/{file_id}").json()["error"]
        assert error["code"] == "file_in_use" and created["id"] in error["message"]
    found = worked(api, client, created)
    rows = content(client, found["training_file"])
    assert rows[1] == LABELLED and len(rows) == 2
    assert found["labelled_rows"] == 1
    for file_id in (labelled, asked):
        assert client.delete(f"/v1/files/{file_id}").status_code == 200


def test_prompts_of_a_dataset_get_new_answers_beside_their_own(
    api: Api, client: httpx.Client
) -> None:
    rows = [
        {"messages": [*LABELLED["messages"][:3], {"role": "assistant", "content": ANSWER}]},
        {"messages": [{"role": "user", "content": said("No.")}, LABELLED["messages"][3]]},
    ]
    file_id = upload_lines(client, rows, purpose="fine-tune")["id"]
    grader = {**EXACT, "reference": "{{item.reference}}"}
    created = create(client, {"type": "file_id", "id": file_id}, filter={"graders": [grader]})
    found = worked(api, client, created)
    (row,) = content(client, found["training_file"])
    assert [message.get("weight") for message in row["messages"]] == [None, 0, None, None]
    assert row["messages"][-1] == {"role": "assistant", "content": ANSWER}
    assert found["reasons"] == {"grader:exact": 1}


def test_stored_completions_are_prompts_or_the_answers_themselves(
    api: Api, client: httpx.Client, engine: ScriptedEngine
) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    for question, more in (("first", {}), ("call twice", {"tools": [tool]})):
        body = {"model": "tiny", "messages": [{"role": "user", "content": question}], **more}
        stored = client.post("/v1/chat/completions", json=body | {"store": True})
        assert stored.status_code == 200, stored.text
    while len(client.get("/v1/chat/completions").json()["data"]) < 2:
        time.sleep(0.01)  # they are stored after they are answered
    asked = len(engine.requests)
    source = {"type": "stored_completions"}
    given = worked(api, client, create(client, source, teacher=None))
    assert given["status"] == "training" and len(engine.requests) == asked
    rows = {row["messages"][0]["content"]: row for row in content(client, given["training_file"])}
    assert rows["first"]["messages"][1]["content"] == ANSWER
    calls = rows["call twice"]["messages"][1]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ['{"a": 1}', '{"a": 2}']
    assert rows["call twice"]["tools"] == [tool]
    again = worked(api, client, create(client, source))
    assert again["filtering"]["kept"] == 2 and len(engine.requests) == asked + 2


def test_too_many_failures_end_it_and_so_does_a_filter_that_keeps_nothing(
    api: Api, client: httpx.Client
) -> None:
    found = worked(api, client, create(client, prompts("fail", "hello"), max_failed_share=0.4))
    assert (found["status"], found["error"]["code"]) == ("failed", "too_many_failures")
    assert found["job_id"] is None and found["training_file"] is None
    assert {each["status"] for each in candidates(client, found)} == {"failed", "answered"}
    graded = create(client, prompts("hello"), filter={"graders": [EXACT], "pass_threshold": 2})
    found = worked(api, client, graded)
    assert (found["status"], found["error"]["code"]) == ("failed", "no_rows_kept")
    assert found["reasons"] == {"below_threshold": 1}
    assert client.get(JOBS).json()["data"] == []


def test_cancel_keeps_the_answers_and_delete_keeps_file_and_job(
    api: Api, client: httpx.Client
) -> None:
    created = create(client, prompts("hello"))
    for _ in range(2):
        cancelled = client.post(f"{ROUTE}/{created['id']}/cancel")
        assert cancelled.status_code == 200 and cancelled.json()["status"] == "cancelled"
    found = worked(api, client, create(client, prompts("hello")))
    cancelled = client.post(f"{ROUTE}/{found['id']}/cancel").json()
    assert (cancelled["status"], look(client, found)["status"]) == ("cancelled", "cancelled")
    assert client.get(f"{JOBS}/{found['job_id']}").json()["status"] == "cancelled"
    for each in (created, found):
        assert client.delete(f"{ROUTE}/{each['id']}").json()["deleted"] is True
        assert client.get(f"{ROUTE}/{each['id']}").status_code == 404
    assert client.get(f"/v1/files/{found['training_file']}/content").status_code == 200
    with api.database.reading() as session:
        assert session.query(DistillationRow).count() == session.query(Task).count() == 0


def test_a_page_of_large_requests_ends_early(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.records.pages.PAGE_BYTES", 10)
    ids = [create(client, prompts("hello"))["id"] for _ in range(3)]
    seen: list[str] = []
    page = client.get(ROUTE).json()
    while page["has_more"]:
        assert len(page["data"]) == 1
        seen += [each["id"] for each in page["data"]]
        page = client.get(ROUTE, params={"after": seen[-1]}).json()
    assert [*seen, *(each["id"] for each in page["data"])] == ids[::-1]


CONTENT = prompts("hello")
JOB = {"model": "tunesmith/tiny"}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"teacher": "tunesmith/none"}, "teacher"),
        ({"teacher": None}, "prompts"),
        ({"sampling": {"temperature": 9}}, "sampling.temperature"),
        ({"sampling": {"n": 0}}, "sampling.n"),
        ({"sampling": {"top_k": 1}}, "sampling.top_k"),
        ({"filter": {"graders": [{**EXACT, "input": "{{nothing}}"}]}}, "filter.graders[0].input"),
        ({"filter": {"graders": [{"type": "guess"}]}}, "filter.graders[0].type"),
        ({"filter": {"keep": 0}}, "filter.keep"),
        ({"max_failed_share": 1.5}, "max_failed_share"),
        (
            {"input_messages": {"type": "item_reference", "item_reference": "item.x"}},
            "input_messages",
        ),
        ({"prompts": {"type": "stored_completions"}}, "prompts"),
        ({"prompts": {"type": "file_id", "id": "file-none"}}, "prompts.id"),
        (
            {"prompts": {"type": "file_content", "content": [{"item": "x"}]}},
            "prompts.content[0].item",
        ),
        ({"labelled_file": "file-none"}, "labelled_file"),
        ({"job": {}}, "job.model"),
        ({"job": JOB | {"training_file": "file-x"}}, "job.training_file"),
        ({"job": JOB | {"modle": "x"}}, "job.modle"),
        ({"job": JOB | {"method": {"type": "dpo"}}}, "job.method.type"),
        ({"job": JOB | {"validation_file": "file-none"}}, "job.validation_file"),
        ({"job": JOB | {"strategy": {"type": "lora", "rank": 0}}}, "job.strategy.rank"),
        ({"job": JOB | {"columns": {"prompt": "x"}}}, "job.columns.prompt"),
    ],
)
def test_wrong_distillation_is_refused_with_the_field(
    api: Api, client: httpx.Client, changes: dict[str, Any], param: str
) -> None:
    answer = client.post(ROUTE, json=body_of(CONTENT, **changes))
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param, answer.text
    assert client.get(ROUTE).json()["data"] == []
    assert not list((api.folder / "storage").rglob("distill-*"))


def test_files_of_the_wrong_kind_are_refused(
    client: httpx.Client, upload: Callable[..., str], dataset: str
) -> None:
    pairs = upload(json.dumps({"prompt": "a", "completion": "b"}).encode() + b"\n")
    bad = upload(b'{"messages": [{"role": "user", "content": "no answer"}]}\n')
    reference = {"type": "file_id", "id": dataset}
    for changes, param in (
        ({"labelled_file": pairs}, "labelled_file"),
        ({"labelled_file": bad}, "labelled_file"),
        ({"prompts": {"type": "file_id", "id": bad}}, "prompts.id"),
        ({"prompts": reference, "teacher": None}, "teacher"),
    ):
        answer = client.post(ROUTE, json=body_of(CONTENT, **changes))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    hint = client.post(ROUTE, json=body_of({"type": "file_id", "id": bad})).json()["error"]
    assert '{"item": {"messages": […]}}' in hint["message"]
