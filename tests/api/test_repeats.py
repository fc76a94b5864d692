"""Requests that are sent again because their answer was lost."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from openai import OpenAI
from sqlalchemy import func, select, update

from api.app import V1_ROUTERS
from api.repeats import LONGEST_KEY, MakingRoute
from core.records.remembered import KEPT_SECONDS, forget_old_requests
from core.records.tables import (
    Batch,
    Eval,
    EvalRun,
    File,
    Job,
    RememberedRequest,
    Sweep,
    Table,
    Task,
)
from tests.api import as_worker, distilling
from tests.api.batch_files import as_file, chat_line
from tests.api.evaluating import CONFIG, EXACT, completions, content, rows
from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"
FILES = "/v1/files"
ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def count(api: Api, table: type[Table]) -> int:
    with api.database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def with_key(key: str = "a key") -> dict[str, str]:
    return {"Idempotency-Key": key}


def tried(times: int) -> dict[str, str]:
    return {"x-stainless-retry-count": str(times)}


def job_of(dataset: str, **more: Any) -> dict[str, Any]:
    return {"model": "tunesmith/tiny", "training_file": dataset} | more


def test_a_key_makes_one_job_with_one_answer(api: Api, client: httpx.Client, dataset: str) -> None:
    first = client.post(JOBS, json=job_of(dataset), headers=with_key())
    assert first.status_code == 200 and "idempotent-replayed" not in first.headers
    client.post(f"{JOBS}/{first.json()['id']}/cancel")
    second = client.post(JOBS, json=job_of(dataset), headers=with_key())
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["content-type"] == first.headers["content-type"] == "application/json"
    other = client.post(JOBS, json=job_of(dataset), headers=with_key("another key"))
    assert other.json()["id"] != first.json()["id"]
    assert count(api, Job) == 2


@pytest.mark.parametrize("path", [JOBS, "/v1/batches"])
def test_a_key_with_another_request_is_refused(
    api: Api, client: httpx.Client, dataset: str, path: str
) -> None:
    client.post(JOBS, json=job_of(dataset), headers=with_key())
    changed = client.post(path, json=job_of(dataset, seed=7), headers=with_key())
    assert (changed.status_code, changed.json()["error"]["code"]) == (
        409,
        "idempotency_key_reused",
    )
    assert changed.headers["x-should-retry"] == "false"
    assert count(api, Job) == 1


@pytest.mark.parametrize("key", ["", "a" * (LONGEST_KEY + 1), "caf\x85"])
def test_a_key_that_cannot_be_stored_is_refused(
    api: Api, client: httpx.Client, dataset: str, key: str
) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    refused = client.post(JOBS, json=job_of(dataset), headers=headers)
    assert refused.json()["error"]["code"] == "invalid_idempotency_key"
    assert count(api, Job) == 0


def test_a_refused_request_may_be_sent_again_with_its_key(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    body = job_of("file-later")
    assert client.post(JOBS, json=body, headers=with_key()).status_code == 404
    made = client.post(JOBS, json=job_of(dataset), headers=with_key())
    assert made.status_code == 200
    assert count(api, Job) == 1


def test_a_hundred_requests_with_one_key_make_one_job(api: Api, dataset: str) -> None:
    def send(_: int) -> httpx.Response:
        with httpx.Client(base_url=api.url, timeout=120, trust_env=False) as client:
            return client.post(JOBS, json=job_of(dataset), headers=with_key())

    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(send, range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 99
    assert count(api, Job) == 1


def test_without_a_key_only_a_marked_repetition_is_one(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    bodies = [client.post(JOBS, json=job_of(dataset), headers=tried(0)) for _ in range(2)]
    assert bodies[0].json()["id"] != bodies[1].json()["id"]  # meant twice
    again = client.post(JOBS, json=job_of(dataset), headers=tried(1))
    assert again.content == bodies[1].content
    assert count(api, Job) == 2
    other = client.post(JOBS, json=job_of(dataset, seed=8), headers=tried(1))
    assert other.json()["id"] not in {body.json()["id"] for body in bodies}


def test_a_repetition_is_one_for_ten_minutes_and_a_key_for_a_day(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    def age(seconds: float) -> None:
        with api.database.writing() as session:
            older = RememberedRequest.created_at - seconds
            session.execute(update(RememberedRequest).values(created_at=older))

    client.post(JOBS, json=job_of(dataset), headers=tried(0))
    age(601)
    client.post(JOBS, json=job_of(dataset), headers=tried(1))
    assert count(api, Job) == 2
    client.post(JOBS, json=job_of(dataset), headers=with_key())
    age(KEPT_SECONDS - 60)
    client.post(JOBS, json=job_of(dataset), headers=with_key())
    assert count(api, Job) == 3
    age(61)
    client.post(JOBS, json=job_of(dataset), headers=with_key())
    assert count(api, Job) == 4
    with api.database.writing() as session:
        assert forget_old_requests(session) == 2
    assert count(api, RememberedRequest) == 1


class _CutOnce(httpx.HTTPTransport):
    """Loses the first answer to a POST, after the server has sent it."""

    cut = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if request.method == "POST" and not self.cut:
            answer.read()
            self.cut += 1
            raise httpx.ReadError("the connection was cut", request=request)
        return answer


def test_stock_client_makes_one_job_if_the_connection_is_cut(api: Api, dataset: str) -> None:
    transport = _CutOnce()
    with httpx.Client(transport=transport, trust_env=False) as http:
        client = OpenAI(base_url=f"{api.url}/v1", api_key="any", http_client=http)
        job = client.fine_tuning.jobs.create(model="tunesmith/tiny", training_file=dataset)
        assert [each.id for each in client.fine_tuning.jobs.list()] == [job.id]
    assert transport.cut == 1


def test_stock_client_uploads_one_file_if_the_connection_is_cut(api: Api) -> None:
    transport = _CutOnce()
    with httpx.Client(transport=transport, trust_env=False) as http:
        client = OpenAI(base_url=f"{api.url}/v1", api_key="any", http_client=http)
        upload = ("rows.jsonl", as_file([ROW]))
        file = client.files.create(file=upload, purpose="fine-tune")
        assert [each.id for each in client.files.list()] == [file.id]
        other = client.files.create(file=upload, purpose="fine-tune")
        assert other.id != file.id  # meant twice
    assert transport.cut == 1
    assert len(list((api.folder / "storage").rglob("file-*"))) == 2


def test_uploads_with_one_key_are_one_file(api: Api, client: httpx.Client) -> None:
    def send(name: str = "a.jsonl") -> httpx.Response:
        form = {"data": {"purpose": "fine-tune"}, "files": {"file": (name, as_file([ROW]))}}
        return client.post(FILES, headers=with_key(), **form)  # type: ignore[arg-type]

    first, second = send(), send()
    assert first.content == second.content
    assert send("b.jsonl").status_code == 409
    assert count(api, File) == 1
    assert len(list((api.folder / "storage").rglob("file-*"))) == 1


def test_a_repetition_waits_for_the_request_that_it_repeats(api: Api, dataset: str) -> None:
    answers: list[bytes] = []

    def send(times: int) -> None:
        with httpx.Client(base_url=api.url, timeout=120, trust_env=False) as client:
            answers.append(client.post(JOBS, json=job_of(dataset), headers=tried(times)).content)

    both = [threading.Thread(target=send, args=(times,)) for times in (0, 1)]
    with api.database.writing() as session:
        session.execute(select(1))  # the first one cannot commit
        both[0].start()
        time.sleep(0.5)
        both[1].start()
        time.sleep(0.5)
        assert not answers
    for each in both:
        each.join()
    assert len(set(answers)) == 1
    assert count(api, Job) == 1


@dataclass
class Given:
    """What a request may name."""

    client: httpx.Client
    dataset: str
    tuned: str


Make = Callable[[Given], tuple[str, dict[str, Any]]]


def _batch(given: Given) -> tuple[str, dict[str, Any]]:
    form = {"file": ("lines.jsonl", as_file([chat_line(1)]))}
    file = given.client.post(FILES, data={"purpose": "batch"}, files=form).json()
    endpoint = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return "/v1/batches", {"input_file_id": file["id"]} | endpoint


def _eval(given: Given) -> tuple[str, dict[str, Any]]:
    return "/v1/evals", {"data_source_config": CONFIG, "testing_criteria": [EXACT]}


def _run(given: Given) -> tuple[str, dict[str, Any]]:
    path, body = _eval(given)
    eval_id = given.client.post(path, json=body).json()["id"]
    return f"/v1/evals/{eval_id}/runs", {"data_source": completions(content(*rows("a", "b")))}


def _sweep(given: Given) -> tuple[str, dict[str, Any]]:
    search = {"type": "grid", "parameters": {"training.learning_rate": [1e-3, 2e-3]}}
    job = job_of(given.dataset, evaluation={"split": 0.1})
    return "/v1/fine_tuning/sweeps", {"job": job, "search": search}


def _mask(given: Given) -> tuple[str, dict[str, Any]]:
    return "/v1/fine_tuning/masks", job_of(given.dataset)


def _comparison(given: Given) -> tuple[str, dict[str, Any]]:
    body = {"models": ["tiny", given.tuned], "file": given.dataset}
    return "/v1/fine_tuning/comparisons", body


def _distillation(given: Given) -> tuple[str, dict[str, Any]]:
    return "/v1/fine_tuning/distillations", distilling.body_of(distilling.prompts("a", "b"))


def _export(given: Given) -> tuple[str, dict[str, Any]]:
    return f"/v1/models/{given.tuned}/exports", {"format": "merged"}


MADE: dict[str, tuple[Make, type[Table]]] = {
    "/batches": (_batch, Batch),
    "/evals": (_eval, Eval),
    "/evals/{eval_id}/runs": (_run, EvalRun),
    "/fine_tuning/sweeps": (_sweep, Sweep),
    "/fine_tuning/masks": (_mask, Task),
    "/fine_tuning/comparisons": (_comparison, Task),
    "/fine_tuning/distillations": (_distillation, Task),
    "/models/{model:path}/exports": (_export, Task),
}


@pytest.mark.parametrize("path", MADE)
def test_other_resources_are_made_once(
    api: Api, client: httpx.Client, create_job: Callable[..., str], dataset: str, path: str
) -> None:
    make, table = MADE[path]
    create_job()
    tuned = as_worker.succeed(api, as_worker.start(api))
    url, body = make(Given(client, dataset, tuned))
    before = count(api, table)
    first = client.post(url, json=body, headers=with_key())
    assert first.status_code in (200, 201), first.text
    again = client.post(url, json=body, headers=with_key())
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.json()["id"]
    assert count(api, table) == before + 1


def test_every_route_that_makes_something_is_listed() -> None:
    tested_elsewhere = {"/fine_tuning/jobs"}
    in_the_same_way = {"/models/import", "/models/soups"}
    found = {
        route.path
        for router in V1_ROUTERS
        for route in router.routes
        if isinstance(route, MakingRoute) and "POST" in route.methods
        if not route.path.endswith(("/cancel", "/pause", "/resume", "_id}"))
    }
    assert found == MADE.keys() | tested_elsewhere | in_the_same_way
