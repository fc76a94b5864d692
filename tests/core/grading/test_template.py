"""Variables of graders' texts: which they are, their values, and what is refused."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.grading.result import GraderFailed
from core.grading.sample import Sample, sample_of_completion, sample_of_text
from core.grading.template import LONGEST_TEXT, InvalidTemplate, names_of, render

CALL = {"id": "c", "type": "function", "function": {"name": "get_acceptors", "arguments": "{}"}}
MESSAGE = {"role": "assistant", "content": None, "tool_calls": [CALL]}
CALLED = sample_of_completion({"choices": [{"index": 0, "message": MESSAGE}]})
ITEM = {
    "answer": "fuzzy wuzzy",
    "number": 1.0,
    "none": None,
    "flag": True,
    "list": ["a", {"b c": "deep"}],
    "dotted.key": "dotted",
    "né-1": "accents",
    "0": "zero",
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ item.answer }}", "fuzzy wuzzy"),
        ("{{item.answer}}", "fuzzy wuzzy"),
        ("{{\n item.answer\t}}", "fuzzy wuzzy"),
        ("{{item.answer}} and {{item.answer}}!", "fuzzy wuzzy and fuzzy wuzzy!"),
        ("{{ item.number }}", "1.0"),
        ("{{ item.none }}", "null"),
        ("{{ item.flag }}", "true"),
        ("{{ item.list }}", '["a", {"b c": "deep"}]'),
        ("{{ item.list[0] }}", "a"),
        ("{{ item.list.0 }}", "a"),
        ("{{ item.list[-1]['b c'] }}", "deep"),
        ('{{ item.list[1]["b c"] }}', "deep"),
        ("{{ item['dotted.key'] }}", "dotted"),
        ("{{ item.né-1 }}", "accents"),
        ("{{ item[0] }}", "zero"),
        ('{"smiles": "{{item.answer}}"}', '{"smiles": "fuzzy wuzzy"}'),
        ("{{{item.number}}}", "{1.0}"),
        ("no braces", "no braces"),
        ("", ""),
        ('{"a": {"b": {}}}', '{"a": {"b": {}}}'),
        ("^{{Ω}rel }is found", "^{{Ω}rel }is found"),
        ("100 % {{", "100 % {{"),
        ("}} {{ {% raw %}", "}} {{ {% raw %}"),
    ],
)
def test_text_is_rendered(text: str, expected: str) -> None:
    assert render(text, ITEM, sample_of_text("x")) == expected


def test_sample_has_what_openai_says() -> None:
    """Text, JSON, tool calls and choices, as in a chat completion."""
    answer = sample_of_text('{"name": "Ann", "tags": [1, 2]}')
    assert render("{{sample.output_json.name}} {{sample.output_json.tags[1]}}", {}, answer) == (
        "Ann 2"
    )
    assert render("{{sample.output_text}}", {}, answer) == answer.output_text
    assert render("{{sample.choices[0].message.role}}", {}, answer) == "assistant"
    assert render("{{sample.output_tools[0].function.name}}", {}, CALLED) == "get_acceptors"
    assert render("{{ sample.output_tools }}", {}, CALLED) == json.dumps([CALL])


def test_null_is_json() -> None:
    assert render("{{sample.output_json}}", {}, sample_of_text(" null\n")) == "null"


@pytest.mark.parametrize("text", ["plain", "NaN", '{"a": Infinity}', '{"a": 1', "[" * 9000])
def test_answer_that_is_not_json_is_a_parse_error(text: str) -> None:
    with pytest.raises(GraderFailed, match="not JSON") as caught:
        render("{{sample.output_json.a}}", {}, sample_of_text(text))
    assert caught.value.flag == "sample_parse_error"


@pytest.mark.parametrize(
    "text",
    [
        "{{ item.missing }}",
        "{{ item.answer.deeper }}",
        "{{ item.answer[0] }}",
        "{{ item.list[2] }}",
        "{{ item.list[-3] }}",
        "{{ item.list.first }}",
        "{{ item.Answer }}",
        "{{ sample.output_tools[0].function.name }}",
        "{{ sample.output_audio.data }}",
        "{{ foo.bar }}",
        "{{ item }}",
    ],
)
def test_variable_without_a_value_is_an_error(text: str) -> None:
    with pytest.raises(GraderFailed) as caught:
        render(text, ITEM, sample_of_text("x"))
    assert caught.value.flag == "invalid_variable_error"


@pytest.mark.parametrize(
    "text",
    [
        "{{ foo }}",
        "{{}}",
        "{{ item }}",
        "{{ items.x }}",
        "{{ item.x | upper }}",
        "{{ item . x }}",
        "{{item.x}",
        "x {{ sample.output_text",
        "{{ 'a' }}",
        "{{ item.a[*] }}",
        "{{ item..a }}",
    ],
)
def test_braces_without_a_variable_are_refused(text: str) -> None:
    with pytest.raises(InvalidTemplate):
        names_of(text)


def test_names_are_known_without_data() -> None:
    names = names_of("{{ item.a[0]['b'] }} {{sample.output_text}}")
    assert [(each.namespace, each.path) for each in names] == [
        ("item", ("a", 0, "b")),
        ("sample", ("output_text",)),
    ]
    assert names[0].written == "item.a[0]['b']"


def test_values_are_not_rendered_again() -> None:
    """A web page in a data set may have the braces of another language."""
    item = {"page": "<p>{{ item.secret }} {{ angular }}</p>", "secret": "s"}
    assert render("{{item.page}}", item, None) == item["page"]
    assert render("{{sample.output_text}}", item, sample_of_text("{{item.secret}}")) == (
        "{{item.secret}}"
    )


def test_text_of_any_length_is_refused_or_rendered_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(GraderFailed, match="more than") as caught:
        render("{{item.x}}" * 10_000, {"x": "y" * 1_000_000}, None)
    assert caught.value.flag == "other_error"
    for hard in ("{{" * 400_000, "{{ " * 300_000, "{{item" + ".a" * 400_000, "{{item['" * 100_000):
        with pytest.raises(GraderFailed) if "item" in hard else _nothing():
            render(hard, {}, None)
    assert render("{{item.x}}" + " " * 1_000_000, {"x": ""}, None) == " " * 1_000_000
    assert len(render("{{item.x}}", {"x": "y" * LONGEST_TEXT}, None)) == LONGEST_TEXT
    assert time.monotonic() - started < 30


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@given(key=st.text(min_size=1), value=JSON, before=st.text(), after=st.text())
def test_every_value_can_be_named(key: str, value: Any, before: str, after: str) -> None:
    quoted = key.replace("\\", "\\\\").replace("'", "\\'")
    before, after = (text.replace("{", "(").replace("}", ")") for text in (before, after))
    found = render(f"{before}{{{{ item['{quoted}'] }}}}{after}", {key: value}, None)
    expected = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    assert found == f"{before}{expected}{after}"


@given(text=st.text(alphabet="{} .item[]sample'\"0x\\", max_size=60))
def test_any_text_is_rendered_or_refused(text: str) -> None:
    """Never another exception, and never a text with a variable that was missed."""
    try:
        rendered = render(text, {"x": "value"}, Sample("out"))
    except GraderFailed as failure:
        assert failure.details
    else:
        assert "item.x}}" not in rendered or "{{" not in text


@given(text=st.text())
def test_text_without_double_braces_is_unchanged(text: str) -> None:
    if "{{" not in text:
        assert render(text, {}, None) == text
