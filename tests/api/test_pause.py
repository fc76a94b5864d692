"""Pausing and resuming over HTTP, training a tuned model further, and evaluation settings."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import OpenAI

from core.records.claims import release
from core.records.owned import get_owned
from core.records.tables import Job
from core.spec.job import JobSpec
from tests.api import as_worker
from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"


def move(client: httpx.Client, job_id: str, how: str) -> dict[str, Any]:
    answer = client.post(f"{JOBS}/{job_id}/{how}")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def refusal(client: httpx.Client, job_id: str, how: str) -> str:
    answer = client.post(f"{JOBS}/{job_id}/{how}")
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("fine_tuning_job_id", "invalid_job_status")
    return str(error["message"])


def spec_of(api: Api, job_id: str) -> JobSpec:
    with api.database.reading() as session:
        return JobSpec.model_validate(get_owned(session, Job, "default", job_id).spec)


def test_waiting_job_pauses_at_once_and_resumes_with_a_wake_up_call(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    job = move(client, job_id, "pause")
    assert job["status"] == "queued"
    assert job["paused_at"] >= job["created_at"]
    messages = api.folder / "broker" / "messages"
    woken = len(list(messages.glob("*.msg")))
    job = move(client, job_id, "resume")
    assert (job["status"], job["paused_at"]) == ("queued", None)
    assert len(list(messages.glob("*.msg"))) == woken + 1


def test_running_job_shows_the_request_until_it_has_stopped(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    held = as_worker.start(api)
    job = move(client, job_id, "pause")
    assert (job["status"], job["paused_at"]) == ("running", None)
    assert job["pause_requested_at"] >= job["created_at"]
    with api.database.writing() as session:
        release(session, held, reason="The run was stopped.")
    job = client.get(f"{JOBS}/{job_id}").json()
    assert (job["status"], job["pause_requested_at"]) == ("queued", None)
    assert job["paused_at"] is not None


def test_refusals_tell_the_client_not_to_try_again(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    assert "is validating_files and not paused" in refusal(client, job_id, "resume")
    move(client, job_id, "pause")
    assert "already paused" in refusal(client, job_id, "pause")
    client.post(f"{JOBS}/{job_id}/cancel")
    assert "already ended (cancelled)" in refusal(client, job_id, "pause")
    assert "is cancelled and not paused" in refusal(client, job_id, "resume")
    for how in ("pause", "resume"):
        assert client.post(f"{JOBS}/ftjob-missing/{how}").status_code == 404


def test_stock_client_pauses_and_resumes(api: Api, create_job: Callable[..., str]) -> None:
    job_id = create_job()
    with OpenAI(base_url=f"{api.url}/v1", api_key="none") as openai:
        assert openai.fine_tuning.jobs.pause(job_id).status == "queued"
        assert openai.fine_tuning.jobs.resume(job_id).status == "queued"


def test_tuned_model_is_trained_further_as_it_was_made(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    strategy = {"type": "lora", "rank": 4}
    first = create_job(strategy=strategy)
    tuned = as_worker.succeed(api, as_worker.start(api))
    made = spec_of(api, first)
    second = create_job(model=tuned)
    job = client.get(f"{JOBS}/{second}").json()
    assert (job["model"], job["requested_model"]) == ("tunesmith/tiny", tuned)
    spec = spec_of(api, second)
    assert (spec.base, spec.strategy) == (made.base, made.strategy)
    assert spec.parent is not None and spec.parent.key.endswith("/final.zip")
    assert create_job(model=tuned, strategy=strategy)


def test_checkpoint_is_trained_further(api: Api, create_job: Callable[..., str]) -> None:
    create_job()
    held = as_worker.start(api)
    as_worker.save_checkpoint(api, held, 5)
    name = f"{as_worker.model_id(api, held.job_id)}:ckpt-step-5"
    spec = spec_of(api, create_job(model=name))
    assert spec.parent is not None and spec.parent.key.endswith("/step-5.zip")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, {"enable_thinking": False, "style": "short"}),
        ({"style": "long"}, {"enable_thinking": False, "style": "long"}),
        ({"enable_thinking": True}, {"enable_thinking": True, "style": "short"}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high", "style": "short"}),
    ],
)
def test_tuned_model_keeps_the_variables_of_its_template_but_for_those_in_the_body(
    api: Api,
    create_job: Callable[..., str],
    asked: dict[str, Any] | None,
    expected: dict[str, Any],
) -> None:
    create_job(chat_template_kwargs={"enable_thinking": False, "style": "short"})
    tuned = as_worker.succeed(api, as_worker.start(api))
    body = {} if asked is None else {"chat_template_kwargs": asked}
    assert spec_of(api, create_job(model=tuned, **body)).chat_template_kwargs == expected


def test_variables_of_tuned_model_and_body_keep_the_limits_together(
    api: Api, client: httpx.Client, create_job: Callable[..., str], dataset: str
) -> None:
    many = {f"kept_{number}": 1 for number in range(32)}
    create_job(chat_template_kwargs=many)
    tuned = as_worker.succeed(api, as_worker.start(api))
    body = {"model": tuned, "training_file": dataset, "chat_template_kwargs": {"one": 1}}
    answer = client.post(JOBS, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "chat_template_kwargs")
    assert "it has 33 variables" in answer.json()["error"]["message"]


def test_another_strategy_than_that_of_the_tuned_model_is_refused(
    api: Api, client: httpx.Client, create_job: Callable[..., str], dataset: str
) -> None:
    create_job(strategy={"type": "lora", "rank": 4})
    tuned = as_worker.succeed(api, as_worker.start(api))
    body = {"model": tuned, "training_file": dataset, "strategy": {"type": "lora", "rank": 8}}
    answer = client.post(JOBS, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "strategy")


def test_model_that_is_being_trained_further_cannot_be_deleted(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    create_job()
    tuned = as_worker.succeed(api, as_worker.start(api))
    user = create_job(model=tuned)
    refused = client.delete(f"/v1/models/{tuned}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_in_use")
    assert user in refused.json()["error"]["message"]
    client.post(f"{JOBS}/{user}/cancel")
    assert client.delete(f"/v1/models/{tuned}").status_code == 200


def test_evaluation_is_kept_with_the_job(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    evaluation = {"split": 0.1, "every_steps": 5, "early_stopping_patience": 2, "keep_best": False}
    job_id = create_job(evaluation=evaluation)
    shown = client.get(f"{JOBS}/{job_id}").json()["evaluation"]
    assert evaluation.items() <= shown.items()
    assert spec_of(api, job_id).evaluation.model_dump(mode="json") == shown


@pytest.mark.parametrize(
    ("evaluation", "param"),
    [
        ({"split": 0.6}, "evaluation.split"),
        ({"every_steps": 0}, "evaluation.every_steps"),
        ({"early_stopping_patience": 10**12}, "evaluation.early_stopping_patience"),
        ({"often": True}, "evaluation.often"),
        ({"split": 0.1}, "evaluation.split"),
    ],
)
def test_impossible_evaluation_names_the_field(
    client: httpx.Client, dataset: str, evaluation: dict[str, Any], param: str
) -> None:
    body = {"model": "tunesmith/tiny", "training_file": dataset, "validation_file": dataset}
    answer = client.post(JOBS, json=body | {"evaluation": evaluation})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
