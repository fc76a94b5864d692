"""Calls are read back as the template writes them, however the text comes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from core.batching.template import ChatTemplate
from core.batching.tool_call_format import tool_call_format
from core.batching.tool_calls import (
    ToolCall,
    ToolCallFormat,
    ToolCallReader,
)
from core.batching.turns import turn_of

HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

TEMPLATES = {
    "hermes": "{% for c in m.tool_calls or [] %}"
    "<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}",
    "llama": "{% for c in m.tool_calls or [] %}"
    '{"name": {{ c.function.name | tojson }}, "parameters": {{ c.function.arguments | tojson }}}'
    "{% endfor %}",
    "mistral": "{% if m.tool_calls %}[TOOL_CALLS] ["
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{{ ', ' if not loop.last }}{% endfor %}]"
    "{% endif %}",
    "openai": "{% if m.tool_calls %}calls: {{ m.tool_calls | tojson }}{% endif %}",
}
UNREADABLE = "{% for c in m.tool_calls or [] %}<call name={{ c.function.name }}/>{% endfor %}"

CALLS = [
    {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2], "deep": {"a": "}"}}},
    {"name": "stop", "arguments": {}},
]


def with_template(tokenizer: PreTrainedTokenizerFast, calls: str) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = HEAD + calls + TAIL
    return tokenizer


@pytest.fixture
def tokenizer(chat_tokenizer):
    template = chat_tokenizer.chat_template
    yield chat_tokenizer
    chat_tokenizer.chat_template = template


def written(tokenizer, content: str, calls: list[dict]) -> str:
    """What a model that was trained on such calls writes, without the end of its turn."""
    tool_calls = [{"id": "call00000", "type": "function", "function": call} for call in calls]
    messages = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": content, "tool_calls": tool_calls},
    )
    return turn_of(ChatTemplate(tokenizer), messages, (), 1).answer.removesuffix("<|im_end|>")


def read(format_, text: str, size: int) -> tuple[str, list[ToolCall]]:
    """Read a text that comes in pieces of some size."""
    reader = ToolCallReader(format_)
    content = "".join(
        reader.push(text[start : start + size]) for start in range(0, len(text), size)
    )
    rest, calls = reader.finish()
    return content + rest, calls


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("family", TEMPLATES)
def test_calls_are_read_back(tokenizer, family, number, size):
    format_ = tool_call_format(with_template(tokenizer, TEMPLATES[family]))
    text, calls = read(format_, written(tokenizer, "", CALLS[:number]), size)
    assert text.strip() == ""
    found = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls]
    assert found == CALLS[:number]


@pytest.mark.parametrize("family", ["hermes", "mistral", "openai"])
def test_text_before_a_call_is_text(tokenizer, family):
    format_ = tool_call_format(with_template(tokenizer, TEMPLATES[family]))
    text, calls = read(format_, written(tokenizer, "Let me look. ", CALLS[:1]), 2)
    assert text.strip() == "Let me look."
    assert [call.name for call in calls] == ["weather"]


@given(text=st.text(alphabet='<tool_call>[]{}:"a \n', max_size=40), size=st.integers(1, 5))
@pytest.mark.parametrize("before", ["<tool_call>\n", "[tool", ""])
def test_what_is_no_call_comes_out_as_it_went_in(before, text, size):
    format_ = ToolCallFormat(before, "", "name", "arguments", "")
    found, calls = read(format_, text, size)
    assert calls == []
    assert found == text


@pytest.mark.parametrize("calls", [UNREADABLE, ""], ids=["no JSON", "no calls"])
def test_a_template_that_writes_no_json_is_not_understood(tokenizer, calls):
    assert tool_call_format(with_template(tokenizer, calls)) is None


def test_the_arguments_of_a_broken_call_are_not_guessed(tokenizer):
    format_ = tool_call_format(with_template(tokenizer, TEMPLATES["hermes"]))
    broken = '<tool_call>\n{"name": "weather", "arguments": {"city": "Z'
    assert read(format_, broken, 4) == (broken, [])
