"""Whatever a file holds, checking it answers, and reading agrees with the answer."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.check import check
from core.datasets.faults import MAX_FAULTS_PER_ROW
from core.datasets.formats import ChatExample, detect_format, parse_row, unrecognised
from core.datasets.read import read_examples
from core.errors import TrainingFailed

ROLES = ["system", "developer", "user", "assistant", "tool", "function"]
WORDS = [
    *ROLES,
    *("messages", "tools", "functions", "parallel_tool_calls", "prompt", "completion"),
    *("instruction", "input", "output", "role", "content", "name", "weight", "refusal"),
    *("tool_calls", "function_call", "tool_call_id", "id", "type", "text", "arguments"),
    *("parameters", "description", "strict", "{}", "[]"),
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
rows = (
    st.dictionaries(words, values, max_size=6)
    | st.fixed_dictionaries({"messages": st.lists(messages | values, max_size=4)})
    | st.fixed_dictionaries(
        {"messages": st.lists(messages, max_size=4), "tools": st.lists(values, max_size=3)}
    )
)


@given(row=rows)
@settings(max_examples=200, deadline=None)
def test_any_object_gives_an_example_or_explained_faults(row: dict[str, Any]) -> None:
    format_ = detect_format(row)
    if format_ is None:
        assert unrecognised(row).message
        return
    result = parse_row(row, format_)
    if isinstance(result, tuple):
        assert 1 <= len(result) <= MAX_FAULTS_PER_ROW
        for fault in result:
            assert fault.field is not None
            assert fault.message.startswith(fault.field)
    elif isinstance(result, ChatExample):
        assert result.messages[-1]["role"] == "assistant"
        assert any(
            message["role"] == "assistant" and message.get("weight", 1) == 1
            for message in result.messages
        )
        for message in result.messages:
            assert message["role"] in ("system", "user", "assistant", "tool")
            assert isinstance(message["content"], str)


@given(
    lines=st.lists(
        st.binary(max_size=30)
        | values.map(lambda value: json.dumps(value).encode())
        | rows.map(lambda row: json.dumps(row).encode()),
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
