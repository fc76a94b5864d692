"""The tables of docs/strategies.md say what the code does."""

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter

from core.catalog.combinations import require_combination
from core.catalog.families import FAMILIES
from core.catalog.learning_rate import base_learning_rate
from core.catalog.objectives import OBJECTIVES, OBJECTIVES_OF
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.spec.objective import SupervisedSpec
from core.spec.strategy import Preset, StrategySpec

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
SPECS = TypeAdapter(StrategySpec)


def table_after(heading):
    """Return the rows of the first table after a heading, each a list of its cells."""
    lines = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names_in(cell):
    return re.findall("`([^`]+)`", cell)


def test_learning_rates_are_those_of_the_code():
    header = r"\| `type` \| Learning rate, tiny \| 1B \| 8B \|"
    assert re.search(header, PAGE)
    number = r"([\de.-]+)"
    told = re.findall(rf"^\| `(\w+)` \| {number} \| {number} \| {number} \|", PAGE, re.MULTILINE)
    assert {name for name, *_ in told} == set(STRATEGIES)
    for name, *rates in told:
        strategy = SPECS.validate_python({"type": name})
        assert list(map(float, rates)) == [
            base_learning_rate(strategy, SupervisedSpec(), hidden_size, steps=75)
            for hidden_size in (256, 2048, 4096)
        ]


def test_options_with_their_defaults_and_aliases_are_those_of_the_code():
    told: dict[str, dict[str, str]] = {name: {} for name in STRATEGIES}
    types: list[str] = []
    for type_cell, option_cell, default, alias_cell, _ in table_after("Options"):
        types = names_in(type_cell) or types
        for name, option in itertools.product(types, names_in(option_cell)):
            told[name][option] = default.strip("`")
            for alias in names_in(alias_cell):
                # an unknown name would be refused whatever its value
                spelled = {"type": name, alias: object()}
                with pytest.raises(ValueError, match=rf"{name}\.{alias}\n  Input should be"):
                    SPECS.validate_python(spelled)
    for name, options in told.items():
        spec = SPECS.validate_python({"type": name}).model_dump(exclude={"type"})
        assert options == {option: as_told(value) for option, value in spec.items()}


def as_told(default):
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return str(default) if default else "none"


def test_presets_are_those_of_the_code():
    told = {}
    for types, query_value, attention, ffn, gate in table_after("Presets"):
        for model_type in names_in(types):
            told[model_type] = {
                "query-value": set(names_in(query_value)),
                "attention": set(names_in(attention)),
                "attention+ffn": {*names_in(attention), *names_in(ffn)},
                "all-linear": {*names_in(attention), *names_in(ffn), *names_in(gate)},
            }
    assert told == {
        model_type: {preset: set(family.layers.preset(preset)) for preset in get_args(Preset)}
        for model_type, family in FAMILIES.items()
    }


def test_what_goes_together_is_what_the_code_accepts():
    told = {
        (model_type, task, objective, strategy)
        for types, *cells in table_after("What goes together")
        for model_type in names_in(types)
        for task, cell in zip(OBJECTIVES_OF, cells, strict=True)
        for objective in filter(None, cell.split(", "))
        for strategy in STRATEGIES
        if (model_type, strategy) != ("modernbert", "prefix")
    }
    assert told == set(filter(is_accepted, all_combinations()))


def all_combinations():
    return itertools.product(FAMILIES, OBJECTIVES_OF, OBJECTIVES, STRATEGIES)


def is_accepted(combination):
    try:
        require_combination(*combination)
    except InvalidRequest:
        return False
    return True
