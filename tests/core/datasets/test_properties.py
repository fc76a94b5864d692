"""Whatever a file holds, checking it answers, and reading agrees with the answer."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.check import check
from core.datasets.formats import (
    ChatExample,
    CompletionExample,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
    detect_format,
    parse_row,
    unknown_layout,
)
from core.datasets.read import read_examples
from core.datasets.row_errors import MAX_ERRORS_PER_ROW
from core.errors import TrainingFailed

ROLES = ["system", "developer", "user", "assistant", "tool", "function"]
WORDS = [
    *ROLES,
    *("messages", "tools", "functions", "parallel_tool_calls", "prompt", "completion"),
    *("instruction", "input", "output", "role", "content", "name", "weight", "refusal"),
    *("tool_calls", "function_call", "tool_call_id", "id", "type", "text", "arguments"),
    *("parameters", "description", "strict", "{}", "[]"),
    *("conversations", "system", "from", "value", "human", "gpt", "function_call", "observation"),
    *("preferred_output", "non_preferred_output", "chosen", "rejected", "label", "labels"),
]
words = st.sampled_from(WORDS) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=5),
    max_leaves=20,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(ROLES) | values,
        "content": st.text() | values,
        "weight": st.integers(-1, 2) | values,
        "tool_calls": st.lists(values, max_size=2) | values,
        "tool_call_id": words,
        "function_call": values,
        "name": words,
    },
)
conversations = st.lists(messages, max_size=4)
turns = st.fixed_dictionaries(
    {
        "from": st.sampled_from(["human", "gpt", "system", "function_call", "observation"]),
        "value": st.sampled_from(['{"name": "f", "arguments": {}}', "[]", "Hei"]) | values,
    }
)
ratings = st.booleans() | st.integers(-1, 2) | words
answers = conversations | st.lists(turns, max_size=3) | messages | turns | words
rows = (
    st.dictionaries(words, values, max_size=6)
    | st.fixed_dictionaries({"messages": st.lists(messages | values, max_size=4)})
    | st.fixed_dictionaries(
        {"messages": st.lists(messages, max_size=4), "tools": st.lists(values, max_size=3)}
    )
    | st.fixed_dictionaries(
        {"conversations": st.lists(turns, max_size=4)}, optional={"system": values, "tools": values}
    )
    | st.fixed_dictionaries(
        {"chosen": conversations | words, "rejected": conversations | words},
        optional={"prompt": conversations | words, "tools": values},
    )
    | st.fixed_dictionaries(
        {"preferred_output": conversations, "non_preferred_output": conversations},
        optional={"input": st.fixed_dictionaries({"messages": conversations}) | values},
    )
    | st.fixed_dictionaries({"text": words}, optional={"label": values, "labels": values})
    | st.fixed_dictionaries({"messages": conversations, "label": ratings})
    | st.fixed_dictionaries({"conversations": st.lists(turns, max_size=3), "label": ratings})
    | st.fixed_dictionaries(
        {"prompt": conversations | words, "completion": conversations | words, "label": ratings}
    )
    | st.fixed_dictionaries(
        {"chosen": answers, "rejected": answers},
        optional={
            "messages": conversations,
            "conversations": st.lists(turns, max_size=3),
            "instruction": words,
            "input": values,
        },
    )
)


@given(row=rows)
@settings(max_examples=200, deadline=None)
def test_any_object_gives_an_example_or_explained_faults(row: dict[str, Any]) -> None:
    format_ = detect_format(row)
    if format_ is None:
        assert unknown_layout(row).message
        return
    result = parse_row(row, format_)
    if isinstance(result, tuple):
        assert 1 <= len(result) <= MAX_ERRORS_PER_ROW
        for fault in result:
            assert fault.field is not None
            assert fault.message.startswith(fault.field)
        return
    match result:
        case ChatExample():
            assert_trains(result)
        case PreferenceExample(chosen=ChatExample() as chosen, rejected=ChatExample() as rejected):
            assert chosen != rejected
            assert_trains(chosen)
            assert_trains(rejected)
        case PreferenceExample(
            chosen=CompletionExample() as chosen, rejected=CompletionExample() as rejected
        ):
            assert chosen.prompt == rejected.prompt
            assert chosen.completion != rejected.completion
        case RatedExample(answer=ChatExample() as answer):
            assert_trains(answer)
        case RatedExample(answer=CompletionExample() as completion):
            assert completion.completion
        case CompletionExample():
            assert result.completion
        case LabelExample():
            assert result.multi or len(result.labels) == 1
            assert all(isinstance(label, str) for label in result.labels)
        case TextExample():
            assert result.text
        case _:
            raise AssertionError(result)


def assert_trains(example: ChatExample) -> None:
    assert example.messages[-1]["role"] == "assistant"
    assert any(
        message["role"] == "assistant" and message.get("weight", 1) == 1
        for message in example.messages
    )
    for message in example.messages:
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert isinstance(message["content"], str)


@given(
    lines=st.lists(
        st.binary(max_size=30)
        | values.map(lambda value: json.dumps(value).encode())
        | rows.map(lambda row: json.dumps(row).encode())
        | st.sampled_from([b"text,label", b'a,"b', b'c"', b"d,e", b"PAR1"]),
        max_size=5,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_file_is_reported_on_and_read_accordingly(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        path.write_bytes(b"\n".join(lines))
        report = check(path)
        assert report.fault_count >= len(report.faults)
        assert bool(report.faults) == bool(report.fault_count)
        assert report.usable != bool(report.fault_count)
        try:
            read = len(list(read_examples(path)))
        except TrainingFailed:
            assert not report.usable
        else:
            assert report.usable
            assert read == report.rows
