"""The planner's texts and measured qualities are those of the documentation and of the results."""

import json
from pathlib import Path

from core.planning.advice import MEASURED_IN, MEASURED_QUALITY, WHEN_TO_USE, quality_of
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


def test_a_missing_quality_has_a_reason():
    for base, strategy in (("tunesmith/tiny", "ia3"), ("other", "lora")):
        found, why = quality_of(base, strategy)
        assert found is None and why is not None and base in why
