"""Search spaces: which trials they make, and which they refuse."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from core.errors import InvalidRequest
from core.spec.search import SearchSpec
from core.sweeps.parameters import applied, described
from core.sweeps.search import trials_of

RATE, RANK = "training.learning_rate", "strategy.rank"


def search(type_: str, parameters: dict[str, Any], **more: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(SearchSpec)
    return adapter.validate_python({"type": type_, "parameters": parameters, **more})


def test_grid_has_every_combination_and_the_last_parameter_changes_fastest() -> None:
    trials = trials_of(search("grid", {RATE: [1e-3, 1e-2], RANK: [4, 8]}), 0)
    assert [(each[RATE], each[RANK]) for each in trials] == [
        (1e-3, 4),
        (1e-3, 8),
        (1e-2, 4),
        (1e-2, 8),
    ]


def test_list_has_a_trial_for_each_place() -> None:
    trials = trials_of(search("list", {RATE: [1e-3, 1e-2], RANK: [4, 8]}), 0)
    assert trials == [{RATE: 1e-3, RANK: 4}, {RATE: 1e-2, RANK: 8}]


@given(st.integers(0, 2**31 - 1), st.integers(2, 20))
def test_random_trials_are_different_within_their_ranges_and_the_same_for_a_seed(
    seed: int, count: int
) -> None:
    space = search(
        "random",
        {
            RATE: {"min": 1e-5, "max": 1e-2, "log": True},
            RANK: {"min": 2, "max": 64},
            "training.warmup_ratio": {"min": 0.0, "max": 0.3},
            "training.schedule": ["cosine", "linear"],
        },
        trials=count,
    )
    trials = trials_of(space, seed)
    assert trials == trials_of(space, seed)
    assert len({described(each) for each in trials}) == count
    for each in trials:
        assert 1e-5 <= each[RATE] <= 1e-2
        assert isinstance(each[RANK], int) and 2 <= each[RANK] <= 64
        assert 0.0 <= each["training.warmup_ratio"] <= 0.3
        assert each["training.schedule"] in ("cosine", "linear")


def test_logarithmic_range_is_drawn_by_the_exponent() -> None:
    space = search("random", {RATE: {"min": 1e-6, "max": 1e-2, "log": True}}, trials=64)
    exponents = [math.log10(each[RATE]) for each in trials_of(space, 1)]
    assert sum(exponent < -4 for exponent in exponents) == pytest.approx(32, abs=10)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (search("grid", {RATE: [0.1 * n for n in range(1, 14)], RANK: [1, 2, 3, 4, 5]}), "has 65"),
        (search("grid", {RATE: [1e-3]}), "two or more"),
        (search("grid", {RATE: [1e-3, 1e-3]}), "Trials 0 and 1 are equal"),
        (search("list", {RATE: [1e-3, 1e-2], RANK: [4]}), "training.learning_rate 2, strategy"),
        (search("random", {RANK: [4, 8]}, trials=3), "only 2 different trials"),
    ],
)
def test_search_without_the_right_number_of_different_trials_is_refused(
    space: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as refusal:
        trials_of(space, 0)
    assert refusal.value.param in ("search.parameters", "search.trials")


@pytest.mark.parametrize(
    ("type_", "parameters"),
    [
        ("grid", {"seed": [1, 2]}),
        ("grid", {"evaluation.split": [0.1, 0.2]}),
        ("grid", {"training_file": ["file-1", "file-2"]}),
        ("grid", {"training.": [1, 2]}),
        ("grid", {}),
        ("grid", {RATE: []}),
        ("grid", {RATE: {"min": 1e-3, "max": 1e-2}}),
        ("grid", {RATE: [float("nan")]}),
        ("random", {RATE: {"min": 1e-2, "max": 1e-3}}),
        ("random", {RATE: {"min": 0.0, "max": 1.0, "log": True}}),
        ("random", {RATE: {"min": True, "max": 2}}),
        ("random", {RATE: {"min": 0.1, "max": float("inf")}}),
        ("random", {"training.max_steps": {"min": 1, "max": 10**400}}),
    ],
)
def test_space_that_cannot_be_searched_is_refused(type_: str, parameters: Any) -> None:
    more = {"trials": 2} if type_ == "random" else {}
    with pytest.raises(ValidationError):
        search(type_, parameters, **more)


def test_values_replace_fields_of_the_job_and_the_wider_field_comes_first() -> None:
    job = {"model": "tiny", "training": {"epochs": 2, "learning_rate": 1.0}}
    parameters = {RANK: 4, "strategy": {"type": "qlora", "rank": 8}, RATE: 1e-3}
    assert applied(job, parameters) == {
        "model": "tiny",
        "training": {"epochs": 2, "learning_rate": 1e-3},
        "strategy": {"type": "qlora", "rank": 4},
    }
    assert job == {"model": "tiny", "training": {"epochs": 2, "learning_rate": 1.0}}
    assert parameters["strategy"] == {"type": "qlora", "rank": 8}
