"""Ids name their kind and give nothing away."""

import re

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
    assert checkpoint_model_id(name, 20) == "ft:tiny:default:pets:abcdefgh:ckpt-step-20"
