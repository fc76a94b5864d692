"""Suffixes of jobs, and hints about names that a creation misspells."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.api import as_worker
from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}}


@pytest.mark.parametrize(
    ("suffix", "part"),
    [
        ("my model", "my-model"),
        (" -My model (2)! ", "My-model-2"),
        ("ünïcode", "unicode"),
        ("a:b/c", "a-b-c"),
        ("line\n", "line"),
        ("v1.2_x", "v1.2_x"),
        ("x" * 62 + " y", "x" * 62 + "-y"),
        ("", ""),
        (" ", ""),
        (None, ""),
    ],
)
def test_a_suffix_is_free_text_that_becomes_a_part_of_the_name(
    api: Api, create_job: Callable[..., str], suffix: str | None, part: str
) -> None:
    create_job(suffix=suffix)
    tuned = as_worker.succeed(api, as_worker.start(api))
    assert tuned.split(":")[-2] == part


@pytest.mark.parametrize(
    ("body", "meant"),
    [
        ({"stratgy": {}}, "strategy"),
        ({"strategy": {"rnk": 8}}, "rank"),
        ({"strategy": {"target_modules": "atention"}}, "attention"),
        ({"strategy": {"type": "qlor"}}, "qlora"),
        ({"training": {"bach_size": 8}}, "batch_size"),
        ({"training": {"schedule": "cosin"}}, "cosine"),
        (supervised(n_epoch=3), "n_epochs"),
        ({"method": {"type": "supervized"}}, "supervised"),
    ],
)
def test_a_misspelling_comes_with_the_name_that_was_meant(
    client: httpx.Client, dataset: str, body: dict[str, Any], meant: str
) -> None:
    good = {"model": "tunesmith/tiny", "training_file": dataset}
    message = client.post(JOBS, json=good | body).json()["error"]["message"]
    assert message.endswith(f"Did you mean {meant!r}?")


def test_a_mistyped_id_comes_with_the_one_that_was_meant(
    client: httpx.Client, dataset: str, create_job: Callable[..., str]
) -> None:
    job = create_job()
    wrong_file, wrong_job = dataset[:-1], job[:-2] + job[-1]
    body = {"model": "tunesmith/tiny", "training_file": wrong_file}
    for answer, meant in (
        (client.post(JOBS, json=body), dataset),
        (client.get(f"/v1/files/{wrong_file}"), dataset),
        (client.get(f"{JOBS}/{wrong_job}"), job),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"].endswith(f"Did you mean {meant!r}?")


def test_suffix_may_have_64_characters(create_job: Callable[..., str]) -> None:
    create_job(suffix="x" * 64)
