"""Ids name their kind and give nothing away."""

import re

import pytest

from core.records.ids import checkpoint_model_id, new_id, tuned_model_id


def test_ids_have_their_prefix_and_never_meet() -> None:
    ids = {new_id("ftjob") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"ftjob-[A-Za-z0-9]{24}", id_) for id_ in ids)


def test_model_name_is_that_of_the_api() -> None:
    job_id = "ftjob-abcdefghijklmnopqrstuvwx"
    name = tuned_model_id("tiny", "default", "pets", job_id)
    assert name == "ft:tiny:default:pets:abcdefgh"
    assert tuned_model_id("tiny", "default", None, job_id) == "ft:tiny:default::abcdefgh"
    assert tuned_model_id(name, "default", "cats", job_id) == "ft:tiny:default:cats:abcdefgh"
    assert checkpoint_model_id(name, 20) == "ft:tiny:default:pets:abcdefgh:ckpt-step-20"


@pytest.mark.parametrize(
    ("requested", "base"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini-2024-07-18"),
        ("tunesmith/tiny", "tiny"),
        ("acme/support/v2", "v2"),
        ("ft:gpt-4o-mini-2024-07-18:default:pets:abcdefgh", "gpt-4o-mini-2024-07-18"),
        ("ft:tunesmith/tiny:default::abcdefgh:ckpt-step-5", "tiny"),  # named by version 0.1.0
    ],
)
def test_model_name_keeps_the_requested_name_without_slashes(requested: str, base: str) -> None:
    name = tuned_model_id(requested, "default", "pets", "ftjob-12345678abcdefghijklmnop")
    assert name == f"ft:{base}:default:pets:12345678"
    assert re.fullmatch(r"ft:[^/:]+:[^/:]+:[^/:]*:[A-Za-z0-9]{8}", name)
