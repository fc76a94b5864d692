"""Variables of chat templates are plain JSON within bounds, whoever gives them."""

import pytest
from pydantic import TypeAdapter, ValidationError

from core.spec.template import TemplateVariables, merged_variables

variables = TypeAdapter(TemplateVariables)


@pytest.mark.parametrize(
    "value",
    [
        {"a": "\ud800"},
        {"a": {"\udfff": 1}},
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": "x\x00y"},
        {"self": 1},
        {"messages": []},
        {"a-b": 1},
        {str(number): 1 for number in range(40)},
        {"a": "x" * 20_000},
    ],
)
def test_what_no_template_or_database_can_carry_is_refused(value):
    with pytest.raises(ValidationError):
        variables.validate_python(value)


def test_plain_json_is_taken_as_it_is():
    value = {"enable_thinking": False, "tone": "größer", "list": [1, None, {"deep": 0.5}]}
    assert variables.validate_python(value) == value


@pytest.mark.parametrize(
    ("kept", "asked", "merged"),
    [
        ({"enable_thinking": False}, {}, {"enable_thinking": False}),
        ({"enable_thinking": False}, {"tone": "a"}, {"enable_thinking": False, "tone": "a"}),
        ({"enable_thinking": False}, {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"thinking": True, "tone": "a"}, {"enable_thinking": False}, None),
    ],
)
def test_one_variable_of_reasoning_replaces_the_others(kept, asked, merged):
    expected = {"tone": "a", "enable_thinking": False} if merged is None else merged
    assert merged_variables(kept, asked) == expected
