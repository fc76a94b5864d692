"""Fields with a second name: either is read, the field's own is written, two values are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ValidationError

from api.models.schemas import ServingBody
from core.artifacts.manifest import Manifest
from core.catalog.bases import CatalogEntry
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.names import Aliased, first_spelling
from core.spec.parity import Parity
from core.spec.precision import PrecisionChoice
from core.spec.serving import ServingSpec
from core.spec.strategy import LoraSpec, QloraSpec
from core.spec.training import TrainingSpec

STORED = json.loads(Path(__file__).with_name("first_spelling.json").read_bytes())
"""Values that the code before the fields were renamed has written."""

BASE = {"id": "tiny", "source": "/models/tiny"}

PAIRS: list[tuple[type[BaseModel], dict[str, Any], str, str, Any, Any]] = [
    (TrainingSpec, {}, "optimizer", "optimiser", "adamw", "paged_adamw"),
    (TrainingSpec, {}, "optimizer", "optim", "adamw", "paged_adamw"),
    (QloraSpec, {}, "quantization", "quantisation", "fp4", "nf4"),
    (QloraSpec, {}, "double_quantization", "double_quantisation", False, True),
    (BaseModelSpec, BASE, "quantization", "quantisation", "nf4", "int8"),
    (ServingSpec, {"form": "merged"}, "quantization", "quantisation", "nf4", "int8"),
    (ServingBody, {"form": "merged"}, "quantization", "quantisation", "nf4", "int8"),
    (
        Parity,
        {"status": "passed"},
        "quantization_gap_nats",
        "quantisation_gap_nats",
        0.5,
        0.25,
    ),
    (LoraSpec, {}, "rank", "r", 4, 8),
]


@pytest.mark.parametrize(("kind", "rest", "own", "other", "value", "another"), PAIRS)
def test_either_name_is_read_and_the_own_one_written(
    kind: type[BaseModel], rest: dict[str, Any], own: str, other: str, value: Any, another: Any
) -> None:
    for given in ({own: value}, {other: value}, {own: value, other: value}):
        for spec in (kind(**rest, **given), kind.model_validate_json(json.dumps(rest | given))):
            written = spec.model_dump()
            assert written[own] == value and other not in written


@pytest.mark.parametrize(("kind", "rest", "own", "other", "value", "another"), PAIRS)
def test_two_values_are_refused_by_both_names(
    kind: type[BaseModel], rest: dict[str, Any], own: str, other: str, value: Any, another: Any
) -> None:
    with pytest.raises(ValidationError) as refusal:
        kind(**rest, **{own: value, other: another})
    [error] = refusal.value.errors()
    assert error["type"] == "two_names"
    assert error["ctx"] == {"first": own, "other": other}


def test_a_third_name_is_refused_like_a_second_one() -> None:
    with pytest.raises(ValidationError, match="'optimizer' and 'optim' name the same field"):
        TrainingSpec(optimizer="adamw", optimiser="adamw", optim="paged_adamw")


def classes(parent: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in parent.__subclasses__():
        yield child
        yield from classes(child)


def test_every_spec_with_second_names_refuses_two_values() -> None:
    with_second_names = {
        kind
        for kind in classes(BaseModel)
        if kind.__module__.startswith(("core.", "api."))
        and not kind.__module__.endswith("settings")
        and any(isinstance(f.validation_alias, AliasChoices) for f in kind.model_fields.values())
    }
    assert {QloraSpec, CatalogEntry, Manifest, ServingBody} <= with_second_names
    assert {kind for kind in with_second_names if not issubclass(kind, Aliased)} == set()


def test_what_was_stored_with_the_first_spelling_is_read() -> None:
    job = JobSpec.model_validate(STORED["job_spec"])
    assert job.base.quantization == "nf4" and job.training.optimizer == "paged_adamw"
    assert isinstance(job.strategy, QloraSpec)
    assert (job.strategy.quantization, job.strategy.double_quantization) == ("fp4", False)
    assert JobSpec.model_validate_json(STORED["job_spec_text"]) == job
    assert ServingSpec.model_validate(STORED["serving"]).quantization == "int8"
    assert Parity.model_validate(STORED["parity"]).quantization_gap_nats == 0.25
    assert PrecisionChoice(choice="bf16", reason="quantised").reason == "quantized"


def test_hashes_are_taken_over_the_first_spelling() -> None:
    text = JobSpec.model_validate(STORED["job_spec"]).model_dump_json()
    assert "quantization" in text and "optimizer" in text and "isation" not in text
    hashed = json.loads(first_spelling(text))
    for part in ("base", "strategy", "training"):
        before = STORED["job_spec"][part]
        assert {name: hashed[part][name] for name in before} == before
