"""The planner's texts and measured qualities are those of the documentation and of the results."""

import json
from pathlib import Path
from statistics import fmean, stdev

from core.planning.advice import (
    ACCURACY_MEASURED_IN,
    MEASURED_ACCURACY,
    MEASURED_IN,
    MEASURED_QUALITY,
    WHEN_TO_USE,
    quality_of,
)
from tests.docs.test_docs import names_in, table_after

ROOT = Path(__file__).parents[3]


def test_when_to_use_a_strategy_is_the_text_of_the_documentation():
    told = {names_in(name)[0]: when for name, _, when in table_after("The strategies")}
    assert told == WHEN_TO_USE


def test_qualities_are_those_of_the_result_file():
    results = json.loads((ROOT / MEASURED_IN).read_text(encoding="utf-8"))
    for (base, strategy), quality in MEASURED_QUALITY.items():
        (found,) = [
            each
            for each in results
            if f"tunesmith/{each['base']}" == base
            and (each["strategy"], each["name"]) == (strategy, quality.dataset)
        ]
        assert (found["rows"], found["steps"]) == (quality.rows, quality.steps)
        assert round(found["untrained"], 3) == quality.untrained_loss
        assert round(found["losses"][f"{found['auto']:g}"], 3) == quality.loss


def test_accuracies_are_those_of_the_result_file():
    runs = json.loads((ROOT / ACCURACY_MEASURED_IN).read_text(encoding="utf-8"))["runs"]
    for (base, strategy), told in MEASURED_ACCURACY.items():
        shares = {"ours": [], "peer": []}
        for run in runs:
            where = (run["budget"]["base"], run["budget"]["task"], run["strategy"])
            if where == (base.removeprefix("tunesmith/"), told.task, strategy):
                assert (run["budget"]["rows"], run["steps"]) == (told.rows, told.steps)
                shares[run["side"]].append(fmean(map(int, run["right"])))
        assert len(shares["ours"]) == len(shares["peer"]) == told.seeds
        assert round(fmean(shares["ours"]), 3) == told.accuracy
        assert round(stdev(shares["ours"]), 3) == told.standard_deviation
        assert round(fmean(shares["peer"]), 3) == told.peer_accuracy


def test_a_missing_quality_has_a_reason():
    for base, strategy in (("tunesmith/tiny", "ia3"), ("other", "lora")):
        found, why = quality_of(base, strategy)
        assert found is None and why is not None and base in why
