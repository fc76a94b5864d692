"""Messages as servers and clients write them, put into files and sent back in requests."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from core.batching.render import conversation_of_request
from core.datasets.check import check
from core.datasets.formats import ChatExample
from core.datasets.read import read_examples
from core.errors import InvalidRequest

USER = {"role": "user", "content": "How warm is Oslo?"}
ANSWER = {"role": "assistant", "content": "4 degrees."}


def call(arguments: Any, **more: Any) -> dict[str, Any]:
    function = {"name": "net.weather", "arguments": arguments}
    made = {"id": "call_1", "type": "function", "index": 0, "function": function, **more}
    return {"role": "assistant", "content": None, "tool_calls": [made]}


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
ANSWERED = {
    **ANSWER,
    "refusal": None,
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": [],
    "parsed": {"degrees": 4},
    "reasoning_content": None,
}
FORMERLY = {**USER, "tool_calls": [], "tool_call_id": "", "weight": 0.0, "name": ""}


def only(path: Path) -> ChatExample:
    [(_, example)] = read_examples(path)
    assert isinstance(example, ChatExample)
    return example


def written(path: Path, row: dict[str, Any]) -> Path:
    path.write_text(json.dumps(row))
    return path


def test_the_answer_of_a_server_is_read_back(tmp_path: Path) -> None:
    path = written(tmp_path / "x", {"messages": [FORMERLY, call("{}"), RESULT, ANSWERED]})
    report = check(path)
    assert report.faults == ()
    assert set(report.unused_columns) == {
        "messages[].annotations",
        "messages[].parsed",
    }
    assert only(path).messages[0] == USER
    assert only(path).messages[3] == ANSWER


def test_it_may_be_sent_in_a_request() -> None:
    messages = conversation_of_request([FORMERLY, call("{}"), RESULT, ANSWERED, USER])
    assert messages[3] == ANSWER
    with pytest.raises(InvalidRequest, match="rename it to 'content'"):
        conversation_of_request([{"role": "user", "contents": "Hei"}])


@pytest.mark.parametrize(
    ("written_arguments", "arguments"),
    [
        ("", {}),
        (" ", {}),
        ('{"city": "Oslo"}', {"city": "Oslo"}),
        ({"city": "Oslo"}, {"city": "Oslo"}),
        ('{"id": 9223372036854775807}', {"id": 2**63 - 1}),
        ('{"id": 18446744073709551615}', {"id": 2**64 - 1}),
        ({"id": -(10**100)}, {"id": -(10**100)}),
        ('{"unit": null}', {"unit": None}),
        ({"unit": None}, {"unit": None}),
    ],
)
def test_arguments_keep_their_values(
    written_arguments: Any, arguments: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "x", {"messages": [USER, call(written_arguments)]})
    made = only(path).messages[1]["tool_calls"][0]["function"]
    assert made == {"name": "net.weather", "arguments": arguments}


def test_the_weight_of_a_table_is_an_integer(tmp_path: Path) -> None:
    row = {"messages": [USER, {**ANSWER, "weight": 0.0}, USER, {**ANSWER, "weight": 1.0}]}
    weights = [message.get("weight") for message in only(written(tmp_path / "x", row)).messages]
    assert [(weight, type(weight)) for weight in weights[1::2]] == [(0, int), (1, int)]


def tool(**parameter: Any) -> dict[str, Any]:
    properties = {"city": {"type": "string", "enum": None}, "n": {"type": "integer", **parameter}}
    function = {
        "name": "weather",
        "description": None,
        "parameters": {"type": "object", "properties": properties},
    }
    return {"type": "function", "function": function}


def test_tools_are_the_same_from_jsonl_and_from_parquet(tmp_path: Path) -> None:
    row = {"messages": [USER, ANSWER], "tools": [tool(maximum=2**63 - 1)]}
    write_table(pa.Table.from_pylist([row]), tmp_path / "parquet")
    from_table, from_lines = only(tmp_path / "parquet"), only(written(tmp_path / "jsonl", row))
    # A table gives every struct every key, but its nulls are gone.
    assert json.dumps(from_table.tools) == json.dumps(from_lines.tools)
    assert from_lines.tools[0]["function"]["parameters"]["properties"] == {
        "city": {"type": "string"},
        "n": {"type": "integer", "maximum": 2**63 - 1},
    }


def test_answers_without_an_id_are_those_of_calls_without_one(tmp_path: Path) -> None:
    two = call("{}", id=None)["tool_calls"] + call("{}", id=None)["tool_calls"]
    results = [{"role": "tool", "content": "4"}, {"role": "tool", "content": "9"}]
    row = {"messages": [USER, {"role": "assistant", "tool_calls": two}, *results, ANSWER]}
    messages = only(written(tmp_path / "x", row)).messages
    ids = [made["id"] for made in messages[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in messages[2:4]] == ids
    assert len(set(ids)) == 2


def test_a_third_answer_to_two_calls_is_a_fault(tmp_path: Path) -> None:
    result = {"role": "tool", "content": "4"}
    row = {"messages": [USER, call("{}", id=None), result, result, ANSWER]}
    [fault] = check(written(tmp_path / "x", row)).faults
    assert fault.field == "messages[3].tool_call_id"
