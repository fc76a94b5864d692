"""American and British spellings in requests, one spelling in answers."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.records.owned import get_owned
from core.records.tables import Job
from tests.api import as_worker
from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"

QLORA = {"type": "qlora"}


def create(client: httpx.Client, dataset: str, **body: Any) -> httpx.Response:
    return client.post(JOBS, json={"model": "tunesmith/tiny", "training_file": dataset, **body})


@pytest.mark.parametrize(
    ("strategy", "training"),
    [
        ({"quantization": "fp4", "double_quantization": False}, {"optimizer": "paged_adamw"}),
        ({"quantisation": "fp4", "double_quantisation": False}, {"optimiser": "paged_adamw"}),
        (
            {"quantisation": "fp4", "quantization": "fp4", "double_quantization": False},
            {"optimizer": "paged_adamw", "optimiser": "paged_adamw"},
        ),
    ],
)
def test_either_spelling_makes_the_same_job(
    client: httpx.Client, dataset: str, strategy: dict[str, Any], training: dict[str, Any]
) -> None:
    created = create(client, dataset, strategy=QLORA | strategy, training=training).json()
    for job in (created, client.get(f"{JOBS}/{created['id']}").json()):
        assert (job["strategy"]["quantization"], job["training"]["optimizer"]) == (
            "fp4",
            "paged_adamw",
        )
        assert job["strategy"]["double_quantization"] is False
        assert "isation" not in str(job) and "optimiser" not in str(job)


@pytest.mark.parametrize(
    ("body", "param", "other"),
    [
        (
            {"training": {"optimizer": "adamw", "optimiser": "paged_adamw"}},
            "training.optimizer",
            "training.optimiser",
        ),
        (
            {"strategy": {"type": "qlora", "quantization": "nf4", "quantisation": "fp4"}},
            "strategy.quantization",
            "strategy.quantisation",
        ),
        ({"strategy": {"type": "lora", "rank": 4, "r": 8}}, "strategy.rank", "strategy.r"),
    ],
)
def test_two_spellings_with_different_values_are_refused_by_both(
    client: httpx.Client, dataset: str, body: dict[str, Any], param: str, other: str
) -> None:
    answer = create(client, dataset, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["code"] == "contradictory_parameters"
    assert repr(param) in error["message"] and repr(other) in error["message"]


def test_a_stored_job_of_the_first_spelling_is_shown_and_runs_on(
    client: httpx.Client, api: Api, create_job: Callable[..., str]
) -> None:
    job_id = create_job(strategy=QLORA)
    with api.database.writing() as session:
        job = get_owned(session, Job, "default", job_id)
        spec = dict(job.spec)
        strategy, training = dict(spec["strategy"]), dict(spec["training"])
        strategy["quantisation"] = strategy.pop("quantization")
        strategy["double_quantisation"] = strategy.pop("double_quantization")
        training["optimiser"] = training.pop("optimizer")
        base = dict(spec["base"])
        base["quantisation"] = base.pop("quantization")
        job.spec = spec | {"strategy": strategy, "training": training, "base": base}
    shown = client.get(f"{JOBS}/{job_id}").json()
    assert shown["strategy"]["quantization"] == "nf4"
    assert shown["training"]["optimizer"] == "auto"
    tuned = as_worker.succeed(api, as_worker.start(api))
    answer = client.post(f"/v1/models/{tuned}/serving", json={"form": "merged"})
    assert answer.json()["serving"] == {"form": "merged", "quantization": None}


def test_the_serving_form_takes_either_spelling(
    client: httpx.Client, api: Api, create_job: Callable[..., str]
) -> None:
    create_job()
    path = f"/v1/models/{as_worker.succeed(api, as_worker.start(api))}/serving"
    for spelling in ("quantization", "quantisation"):
        answer = client.post(path, json={"form": "merged", spelling: "nf4"})
        assert answer.json()["serving"] == {"form": "merged", "quantization": "nf4"}
    both = {"form": "merged", "quantization": "nf4", "quantisation": "int8"}
    error = client.post(path, json=both).json()["error"]
    assert (error["param"], error["code"]) == ("quantization", "contradictory_parameters")
    assert "'quantisation'" in error["message"]
