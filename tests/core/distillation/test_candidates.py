"""Answers of a teacher: which cannot be trained on, and what a row of the others is."""

from typing import Any

import pytest

from core.datasets.examples import ChatExample
from core.distillation.candidates import Answered, Candidate, candidate_of, is_name_of, reason
from core.distillation.training_rows import fault_of, labelled_row, training_row

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
USER = {"role": "user", "content": "?"}


def answered(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> Candidate:
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return candidate_of(0, {"model": "gpt-x", "choices": [choice]} | more, ["gpt-x"], TOOLS)


def called(name: object, arguments: object) -> Candidate:
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return answered({"content": None, "tool_calls": [call]}, "tool_calls")


@pytest.mark.parametrize(
    ("given", "name", "is_it"),
    [
        ("gpt-x", "gpt-x", True),
        ("GPT-X", "gpt-x", True),
        ("gpt-x-2026-01-31", "gpt-x", True),
        ("gpt-x-20260131", "gpt-x", True),
        ("gpt-x-0613", "gpt-x", True),
        ("gpt-x-latest", "gpt-x", True),
        ("llama3:latest", "llama3", True),
        ("gpt-x", "openai/gpt-x", True),
        ("openai/gpt-x", "gpt-x", True),
        ("gpt-x-mini", "gpt-x", False),
        ("gpt-x-mini-2026-01-31", "gpt-x", False),
        ("llama-3-8b", "llama-3", False),
        ("gpt", "gpt-x", False),
        ("other", "gpt-x", False),
    ],
)
def test_dates_and_tags_are_names_of_the_same_model(given: str, name: str, is_it: bool) -> None:
    assert is_name_of(given, name) is is_it


def test_another_model_is_an_error_unless_it_is_named() -> None:
    assert answered({"content": "4"}, model="azure-x").reason is not None
    message = {"role": "assistant", "content": "4"}
    completion = {"model": "azure-x", "choices": [{"message": message}]}
    assert candidate_of(0, completion, ["gpt-x", "azure-x"], ()).status == "answered"
    assert candidate_of(0, completion, [], ()).status == "answered"
    assert candidate_of(0, completion | {"model": None}, ["gpt-x"], ()).status == "answered"


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("add", '{"a": 1}', None),
        ("add", {"a": 1}, None),
        ("add", "[1]", "invalid_tool_calls"),
        ("add", "", "invalid_tool_calls"),
        ("add", None, "invalid_tool_calls"),
        ("add", "[" * 100_000, "invalid_tool_calls"),
        ("sub", "{}", "invalid_tool_calls"),
        (None, "{}", "invalid_tool_calls"),
    ],
)
def test_calls_name_an_offered_tool_and_have_json(
    name: object, arguments: object, code: str | None
) -> None:
    found = called(name, arguments)
    assert (found.reason and found.reason.code) == code
    if code is None:
        assert found.message is not None
        row = training_row([USER], found.message, TOOLS)
        assert fault_of(row) is None


@pytest.mark.parametrize("calls", ["add()", [1], [{"id": "1"}], {"name": "add"}])
def test_calls_of_another_shape_are_survived(calls: Any) -> None:
    found = answered({"content": "", "tool_calls": calls})
    assert found.status == "failed" and found.reason is not None


def test_what_was_said_is_kept_also_of_a_failed_answer() -> None:
    found = answered({"content": "half of", "reasoning_content": "Hm."}, "length")
    assert found.status == "failed"
    assert found.message == {
        "role": "assistant",
        "content": "half of",
        "reasoning_content": "Hm.",
    }


def test_a_prompt_has_the_status_of_its_best_answer() -> None:
    def prompt(*statuses: Any) -> Answered:
        candidates = tuple(
            Candidate(number=at, status=each, reason=reason(f"{each} {at}", ""))
            for at, each in enumerate(statuses)
        )
        return Answered(item={}, messages=(), candidates=candidates)

    assert prompt("failed", "answered", "failed").status == "answered"
    assert prompt("failed", "dropped", "kept").status == "kept"
    assert prompt("failed", "dropped").status == "dropped"
    why = prompt("failed", "dropped", "dropped").why
    assert why is not None and why.code == "dropped 1"
    assert prompt().status == "failed"


def test_only_the_answer_of_the_teacher_is_trained_on() -> None:
    earlier = [USER, {"role": "assistant", "content": "said before"}, USER]
    row = training_row(earlier, {"role": "assistant", "content": "taught"}, ())
    weights = [message.get("weight") for message in row["messages"]]
    assert weights == [None, 0, None, None] and "tools" not in row


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "wizard", "content": "?"}],
        [{"role": "tool", "content": "4", "tool_call_id": "unknown"}],
    ],
)
def test_a_prompt_that_no_file_may_have_is_a_fault(messages: list[dict[str, Any]]) -> None:
    assert fault_of(training_row(messages, {"role": "assistant", "content": "a"}, ())) is not None


def test_a_labelled_row_keeps_weights_and_calls_as_clients_write_them() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    example = ChatExample(
        messages=(
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "no", "weight": 0},
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ),
        tools=(TOOLS[0],),
    )
    row = labelled_row(example)
    assert row["messages"][1]["weight"] == 0
    assert row["messages"][3]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert row["tools"] == TOOLS and fault_of(row) is None
