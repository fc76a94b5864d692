"""Hostile bodies of a creation: a refusal that names the field, and at once."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draw

from api.jobs.schemas import CreateJob
from core.spec.members import members
from core.spec.strategy import StrategySpec
from core.spec.training import EvaluationSpec, TrainingSpec

JOBS = "/v1/fine_tuning/jobs"
METHOD = "method.dpo.hyperparameters"
STRATEGIES = members(StrategySpec)


def dpo(**hyperparameters: Any) -> dict[str, Any]:
    return {"method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}}


def create(client: httpx.Client, dataset: str, body: dict[str, Any]) -> httpx.Response:
    good = {"model": "tunesmith/tiny", "training_file": dataset}
    # not `json=`, which refuses to write NaN
    return client.post(
        JOBS, content=json.dumps(good | body), headers={"content-type": "application/json"}
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"strategy": {"rank": 10**12}}, "strategy.rank"),
        ({"strategy": {"rank": -1}}, "strategy.rank"),
        ({"strategy": {"rank": float("nan")}}, "strategy.rank"),
        ({"strategy": {"alpha": float("nan")}}, "strategy.alpha"),
        ({"strategy": {"alpha": float("inf")}}, "strategy.alpha"),
        ({"strategy": {"dropout": 1}}, "strategy.dropout"),
        ({"strategy": {"target_modules": ["q"] * 10_000}}, "strategy.target_modules"),
        ({"strategy": {"target_modules": ["q" * 300]}}, "strategy.target_modules[0]"),
        ({"strategy": {"target_modules": ["q\x00"]}}, "strategy.target_modules[0]"),
        ({"strategy": {"modules_to_save": ["a"] * 65}}, "strategy.modules_to_save"),
        ({"strategy": {"rank_pattern": {"(a+)+$": 4}}}, "strategy.rank_pattern"),
        ({"strategy": {"alpha_pattern": {"(a|a)*$": 4}}}, "strategy.alpha_pattern"),
        ({"strategy": {"rank_pattern": {"(": 4}}}, "strategy.rank_pattern"),
        ({"strategy": {"rank_pattern": {"q": 10**12}}}, "strategy.rank_pattern.q"),
        (
            {"strategy": {"rank_pattern": {f"q{number}": 4 for number in range(10_000)}}},
            "strategy.rank_pattern",
        ),
        ({"strategy": {"type": "prompt", "init_text": "x" * 1_000_000}}, "strategy.init_text"),
        ({"strategy": {"type": "prompt", "init_text": ""}}, "strategy.init_text"),
        ({"strategy": {"type": "prefix", "virtual_tokens": 1024}}, "strategy.virtual_tokens"),
        ({"strategy": {"type": "bottleneck", "reduction_factor": 0}}, "strategy.reduction_factor"),
        ({"strategy": {"type": ["lora"]}}, "strategy.type"),
        ({"strategy": {"type": "full", "rank": 4}}, "strategy.rank"),
        ({"strategy": "lora"}, "strategy"),
        ({"strategy": None}, "strategy"),
        ({"strategy": []}, "strategy"),
        ({"task": "regression"}, "task"),
        ({"task": "seq2seq"}, "task"),
        ({"task": "classification"}, "objective"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate"),
        ({"training": {"max_length": -1}}, "training.max_length"),
        ({"training": {"max_steps": 10**12}}, "training.max_steps"),
        ({"training": {"warmup_ratio": 2}}, "training.warmup_ratio"),
        ({"training": {"precision": "int1"}}, "training.precision"),
        ({"training": 3}, "training"),
        ({"evaluation": {"split": float("nan")}}, "evaluation.split"),
        ({"evaluation": {"split": 0.9}}, "evaluation.split"),
        (
            {"evaluation": {"split": 0.5, "require": {"metric": "loss", "at_most": float("inf")}}},
            "evaluation.require.at_most",
        ),
        ({"evaluation": {"every_steps": 0}}, "evaluation.every_steps"),
        (dpo(beta=-1), f"{METHOD}.beta"),
        (dpo(beta=float("nan")), f"{METHOD}.beta"),
        (dpo(label_smoothing=0.5), f"{METHOD}.label_smoothing"),
        ({"method": []}, "method"),
    ],
)
def test_the_field_at_fault_is_named(
    client: httpx.Client, dataset: str, body: dict[str, Any], param: str
) -> None:
    answer = create(client, dataset, body)  # a stalled matcher would outlast the client's patience
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert len(answer.text) < 10_000


FIELDS = [
    *(
        ("strategy", {"type": spec.model_fields["type"].default}, name)
        for spec in STRATEGIES
        for name in spec.model_fields
    ),
    *(("training", {}, name) for name in TrainingSpec.model_fields),
    *(("evaluation", {}, name) for name in EvaluationSpec.model_fields),
]


@pytest.mark.parametrize("part", ["strategy", "training", "evaluation"])
def test_a_value_of_no_field_s_type_is_refused_in_every_field(
    client: httpx.Client, dataset: str, part: str
) -> None:
    for name, around, field in FIELDS:
        if name != part:
            continue
        wrong = [[{"no": "field"}]]  # a list of a dict, which no field takes
        answer = create(client, dataset, {name: around | {field: wrong}})
        assert answer.status_code == 400, (field, answer.text)
        assert answer.json()["error"]["param"].startswith(f"{name}.{field}"), answer.text


VALUES = draw.recursive(
    draw.none()
    | draw.booleans()
    | draw.integers()
    | draw.floats()
    | draw.text(max_size=20)
    | draw.sampled_from(["lora", "dpo", "auto", "\ud800", "\x00", 10**12, -1, "(a+)+$"]),
    lambda inner: (
        draw.lists(inner, max_size=3) | draw.dictionaries(draw.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def parts(*names: str) -> draw.SearchStrategy[Any]:
    return draw.dictionaries(draw.sampled_from(names), VALUES, max_size=4) | VALUES


BODIES = draw.fixed_dictionaries(
    {},
    optional={
        "strategy": parts(
            "type", *{name for spec in STRATEGIES for name in spec.model_fields}, "r", "lora_alpha"
        ),
        "training": parts(*TrainingSpec.model_fields),
        "evaluation": parts(*EvaluationSpec.model_fields),
        "method": parts("type", "supervised", "dpo", "reinforcement"),
        **{
            name: VALUES
            for name in CreateJob.model_fields
            if name not in ("strategy", "training", "evaluation", "method", "training_file")
        },
    },
)


def test_no_body_whatever_breaks_the_server(client: httpx.Client, dataset: str) -> None:
    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(BODIES)
    def check(body: dict[str, Any]) -> None:
        answer = create(client, dataset, body)
        assert answer.status_code in (200, 400, 404), (body, answer.text)
        if answer.status_code != 200:
            assert answer.json()["error"]["param"], (body, answer.text)

    check()


@pytest.mark.parametrize(
    ("rows", "body", "param", "says"),
    [
        (['{"text": "a", "label": 1}'] * 2, {}, "training_file", "only the label '1'"),
        (['{"text": "a", "labels": []}'] * 2, {}, "training_file", "no label"),
        (['{"text": "a", "label": true}'], {}, "training_file", "Line 1"),
        (
            ['{"prompt": "a", "chosen": "b", "rejected": "b"}'],
            {"method": {"type": "dpo"}},
            "training_file",
            "Line 1",
        ),
        (['{"prompt": "a", "chosen": "b", "rejected": "c"}'], {}, "method.type", "'dpo'"),
        (
            ['{"messages": [{"role": "system", "content": "a"}]}'],
            {},
            "training_file",
            "Line 1",
        ),
    ],
)
def test_data_that_teach_nothing_are_refused_at_creation(
    client: httpx.Client,
    upload: Callable[..., str],
    rows: list[str],
    body: dict[str, Any],
    param: str,
    says: str,
) -> None:
    file_id = upload("\n".join(rows).encode())
    answer = create(client, file_id, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert says.lower() in answer.json()["error"]["message"].lower()
