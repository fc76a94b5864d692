"""What a body asks of an engine, what the response repeats, and what is refused."""

from typing import Any

import pytest

from core.errors import InvalidRequest
from core.inference.responses.output import response_object
from core.spec.generation import JsonObjectOutput, SchemaOutput, ToolCallOutput
from core.spec.response import ResponsePlan
from tests.contract.contract import check_schema
from tests.core.inference.responses.planned import TOOL, plan_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"type": "json_schema", "name": "sum", "schema": SCHEMA, "strict": True}
OTHER = TOOL | {"name": "other"}


def names(plan: ResponsePlan) -> list[str]:
    return [tool["function"]["name"] for tool in plan.prompt.tools]


def test_sampling_and_template_are_those_of_the_body() -> None:
    plan = plan_of(temperature=0.5, top_p=0.9, max_output_tokens=7, reasoning={"effort": "low"})
    sampling = plan.request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.5, 0.9, 7)
    assert plan.prompt.template_kwargs == {"reasoning_effort": "low"}
    assert plan_of().prompt.template_kwargs == {}
    assert plan_of().request.sampling.max_tokens is None


def test_response_repeats_the_request_with_the_defaults_of_openai() -> None:
    response = response_object(plan_of(), "in_progress")
    check_schema("Response", response)
    expected = {
        "object": "response",
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
    }
    assert response | expected == response
    assert "user" not in response and "usage" not in response


def test_response_repeats_everything_that_was_given() -> None:
    given: dict[str, Any] = {
        "instructions": "Add.",
        "metadata": {"a": "b"},
        "user": "me",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "max_tool_calls": 3,
        "tools": [TOOL | {"description": None}],
        "text": {"format": NAMED},
        "reasoning": {"effort": "high", "generate_summary": "auto"},
        "truncation": "auto",
        "store": False,
    }
    response = response_object(plan_of(**given), "in_progress")
    check_schema("Response", response)
    assert {key: response[key] for key in given if key not in ("text", "reasoning")} == {
        key: value for key, value in given.items() if key not in ("text", "reasoning")
    }
    assert response["text"]["format"] == NAMED
    assert response["reasoning"] == {"effort": "high", "summary": "auto"}


def test_a_tool_is_rendered_as_in_a_chat() -> None:
    """`strict` is for the service: clients set it always, training data hardly ever has it."""
    (tool,) = plan_of(tools=[TOOL]).prompt.tools
    function = {key: TOOL[key] for key in ("name", "description", "parameters")}
    assert tool == {"type": "function", "function": function}


@pytest.mark.parametrize(
    ("choice", "offered", "output"),
    [
        (None, ["add", "other"], None),
        ("auto", ["add", "other"], None),
        ("none", [], None),
        ("required", ["add", "other"], ToolCallOutput()),
        ({"type": "function", "name": "add"}, ["add", "other"], ToolCallOutput(name="add")),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "other"}],
            },
            ["other"],
            None,
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "other"}],
            },
            ["other"],
            ToolCallOutput(),
        ),
    ],
    ids=str,
)
def test_tool_choice(choice: Any, offered: list[str], output: ToolCallOutput | None) -> None:
    plan = plan_of(tools=[TOOL, OTHER], tool_choice=choice)
    assert names(plan) == offered
    assert plan.request.sampling.structured_output == output
    response = response_object(plan, "in_progress")
    check_schema("Response", response)
    assert response["tool_choice"] == (choice or "auto")
    assert len(response["tools"]) == 2


def test_formats_of_the_text() -> None:
    def output(format_: Any) -> Any:
        plan = plan_of(text={"format": format_})
        check_schema("Response", response_object(plan, "in_progress"))
        return plan.request.sampling.structured_output

    assert output(None) is None
    assert output({"type": "text"}) is None
    assert output({"type": "json_object"}) == JsonObjectOutput()
    assert output(NAMED) == SchemaOutput(json_schema=SCHEMA)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        (
            {"context_management": [{"type": "compaction"}]},
            "context_management",
            "unsupported_parameter",
        ),
        ({"moderation": {"model": "x"}}, "moderation", "unsupported_parameter"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter"),
        ({"background": True, "store": False}, "store", "contradictory_parameters"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}},
            "tool_choice",
            "invalid_value",
        ),
        (
            {"tools": [TOOL], "tool_choice": "required", "text": {"format": NAMED}},
            "tool_choice",
            "contradictory_parameters",
        ),
        ({"tools": [TOOL | {"parameters": {"a": "\ud800"}}]}, "tools", "invalid_value"),
        ({"tools": [TOOL | {"parameters": {"a": float("nan")}}]}, "tools", "invalid_value"),
    ],
    ids=str,
)
def test_what_is_not_offered_is_refused(fields: Any, param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        plan_of(**fields)
    assert (refusal.value.param, refusal.value.code) == (param, code)


BUILT_IN = (
    {"type": "web_search"},
    {"type": "web_search_preview", "search_context_size": "low"},
    {"type": "file_search", "vector_store_ids": ["vs_1"]},
    {"type": "computer_use_preview", "display_width": 1},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "x"},
    {"type": "local_shell"},
    {"type": "custom", "name": "x"},
)


@pytest.mark.parametrize("tool", BUILT_IN, ids=lambda tool: tool["type"])
def test_tools_of_openai_are_refused_by_name(tool: dict[str, Any]) -> None:
    for fields, param in (
        ({"tools": [TOOL, tool]}, "tools[1]"),
        ({"tools": [TOOL], "tool_choice": tool}, "tool_choice"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [tool]},
            },
            "tool_choice.tools[0]",
        ),
    ):
        with pytest.raises(InvalidRequest, match=f"type '{tool['type']}'") as refusal:
            plan_of(**fields)
        assert (refusal.value.param, refusal.value.code) == (param, "unsupported_tool")


def test_a_plan_survives_its_task() -> None:
    plan = plan_of(tools=[TOOL], text={"format": NAMED}, background=True)
    assert ResponsePlan.model_validate(plan.model_dump(mode="json")) == plan
