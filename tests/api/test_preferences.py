"""Jobs of DPO, ORPO, SimPO and KTO: their files, the names of their numbers, and refusals."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"
QUESTION = {"role": "user", "content": "Capital of Norway?"}
ANSWER = {"role": "assistant", "content": "Oslo."}
WORSE = {"role": "assistant", "content": "Bergen."}
PAIR = {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [WORSE]}
RATED = {"messages": [QUESTION, ANSWER], "label": True}


@pytest.fixture
def ours(api: Api) -> Iterator[httpx.Client]:
    """A client without the contract, which does not know these methods."""
    with httpx.Client(base_url=api.url, timeout=120) as client:
        yield client


def lines(row: dict[str, Any], count: int = 40) -> bytes:
    return b"".join(json.dumps(row | {"id": index}).encode() + b"\n" for index in range(count))


def create(
    client: httpx.Client, file: str, method: str, options: dict[str, Any], **body: Any
) -> httpx.Response:
    asked = {"type": method, method: {"hyperparameters": options}}
    return client.post(
        JOBS, json={"model": "tunesmith/tiny", "training_file": file, "method": asked, **body}
    )


@pytest.mark.parametrize(
    ("row", "method", "options", "expected"),
    [
        (PAIR, "orpo", {}, {"type": "orpo", "beta": 0.1}),
        (PAIR, "simpo", {}, {"type": "simpo", "beta": 2.0, "gamma": 1.0}),
        (PAIR, "simpo", {"simpo_gamma": 0.5}, {"type": "simpo", "beta": 2.0, "gamma": 0.5}),
        (RATED, "kto", {"beta": 0.2}, {"type": "kto", "beta": 0.2}),
        (PAIR, "kto", {"desirable_weight": 2}, {"type": "kto", "desirable_weight": 2.0}),
    ],
)
def test_job_has_the_objective_of_its_method(
    ours: httpx.Client,
    upload: Callable[..., str],
    row: dict[str, Any],
    method: str,
    options: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    job = create(ours, upload(lines(row)), method, options).json()
    assert expected.items() <= job["objective"].items()
    shown = job["method"][method]["hyperparameters"]
    assert {key: shown[key] for key in expected.keys() - {"type"}} == {
        key: value for key, value in expected.items() if key != "type"
    }
    assert "simpo_gamma" not in str(job)


def test_a_preference_counts_as_two_rows_of_kto(
    ours: httpx.Client, upload: Callable[..., str]
) -> None:
    pairs, rated = upload(lines(PAIR, 100)), upload(lines(RATED, 200))
    jobs = [create(ours, file, "kto", {}).json() for file in (pairs, rated)]
    assert jobs[0]["training"] == jobs[1]["training"]


@pytest.mark.parametrize(
    ("method", "options", "name"),
    [
        ("simpo", {"gamma": -1}, "gamma"),
        ("simpo", {"simpo_gamma": "much"}, "simpo_gamma"),
        ("simpo", {"gamma": 1, "simpo_gamma": 2}, "gamma"),
        ("simpo", {"loss_type": "simpo"}, "loss_type"),
        ("orpo", {"beta": 0}, "beta"),
        ("orpo", {"alpha": 1}, "alpha"),
        ("kto", {"undesirable_weight": 0}, "undesirable_weight"),
        ("kto", {"loss_type": "kto"}, "loss_type"),
        ("dpo", {"label_smoothing": 0.5}, "label_smoothing"),
    ],
)
def test_wrong_number_is_named(
    ours: httpx.Client,
    upload: Callable[..., str],
    method: str,
    options: dict[str, Any],
    name: str,
) -> None:
    answer = create(ours, upload(lines(PAIR)), method, options)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == f"method.{method}.hyperparameters.{name}"
    assert name in error["message"]


@pytest.mark.parametrize(
    ("row", "key"),
    [
        (RATED, "messages"),
        ({"prompt": "a", "completion": "b", "label": 0}, "prompt"),
        ({"instruction": "a", "output": "b", "label": 1}, "instruction"),
    ],
)
def test_a_label_that_is_no_rating_can_be_left_unused(
    ours: httpx.Client, upload: Callable[..., str], row: dict[str, Any], key: str
) -> None:
    """Files of demonstrations may have a column `label` of 0 and 1 for something else."""
    file = upload(lines(row))
    refused = create(ours, file, "supervised", {}).json()["error"]
    assert refused["param"] == "method.type"
    columns = {key: key}
    assert f"If 'label' is no rating, use columns {json.dumps(columns)}." in refused["message"]
    job = create(ours, file, "supervised", {}, columns=columns).json()
    assert job["objective"]["type"] == "supervised"


def test_ratings_under_another_name_come_with_their_mapping(
    ours: httpx.Client, upload: Callable[..., str]
) -> None:
    file = upload(lines({"prompt": "a", "completion": "b", "thumbs_up": True}))
    refused = create(ours, file, "kto", {}).json()["error"]
    assert refused["param"] == "method.type"
    assert 'use columns {"label": "thumbs_up"}' in refused["message"]
    job = create(ours, file, "kto", {}, columns={"label": "thumbs_up"}).json()
    assert job["objective"]["type"] == "kto"
