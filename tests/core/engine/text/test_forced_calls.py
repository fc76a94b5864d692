"""Forced calls and forms in the ways of real templates, reasoning before them included."""

import json
from functools import cache

import pytest

from core.batching.probe import answer_with
from core.batching.template import ChatTemplate
from core.batching.turn_probe import special_tokens, turn_format
from core.engine.text.output_grammars import compile_call, compile_text
from core.engine.text.structured_output import GrammarVocabulary, grammar_vocabulary
from core.errors import InvalidRequest
from core.spec.generation import SchemaOutput, ToolCallOutput
from tests.templates import template_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
    for name in ("look", "stop")
]
FORCED = (
    *("qwen2_5", "qwen3", "llama3_1", "deepseekv3", "gptoss"),
    *("glm4moe", "qwen3_5_think", "nemotron_3_nano", "muse_glimmer"),
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@cache
def vocabulary(name: str) -> GrammarVocabulary:
    tokenizer = template_tokenizer(name)
    return grammar_vocabulary(tokenizer, len(tokenizer), [tokenizer.eos_token_id])


def accepts(name: str, form, text: str) -> bool:
    """Whether a form lets a model write a text and end there."""
    held = form.start()
    for token in template_tokenizer(name).encode(text, add_special_tokens=False):
        if not held.allowed()[token]:
            return False
        held.take(token)
    return bool(held.allowed()[template_tokenizer(name).eos_token_id])


def written(name: str, call: tuple[str, dict]) -> str:
    """A call as the template writes it, without reasoning and the end of the turn."""
    tokenizer = template_tokenizer(name)
    turn = answer_with(ChatTemplate(tokenizer), "", [call])
    assert turn is not None
    answer = turn.answer.rstrip()
    ends = [token for token in special_tokens(tokenizer) if answer.endswith(token)]
    answer = answer.removesuffix(max(ends, key=len, default=""))
    return answer.rpartition("</think>")[2].strip()


@pytest.mark.parametrize("name", FORCED)
def test_a_forced_call_is_what_the_template_writes(name):
    format_ = turn_format(template_tokenizer(name))
    form = compile_call(ToolCallOutput(), format_, TOOLS, "closed", vocabulary(name))
    for arguments in ({"city": "Bern"}, {"city": 'a "b"', "days": 3}):
        assert accepts(name, form, written(name, ("look", arguments)))
    assert not accepts(name, form, written(name, ("look", {"days": 3})))
    assert not accepts(name, form, written(name, ("jump", {"city": "Bern"})))
    assert not accepts(name, form, "")
    named = compile_call(ToolCallOutput(name="stop"), format_, TOOLS, "closed", vocabulary(name))
    assert accepts(name, named, written(name, ("stop", {"city": "Bern"})))
    assert not accepts(name, named, written(name, ("look", {"city": "Bern"})))


@pytest.mark.parametrize("name", ["gemma4", "lfm2_v2", "llama3", "phi3"])
def test_a_call_that_no_grammar_can_write_is_refused(name):
    format_ = turn_format(template_tokenizer(name))
    with pytest.raises(InvalidRequest) as caught:
        compile_call(ToolCallOutput(), format_, TOOLS, "closed", vocabulary(name))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tool_choice")


@pytest.mark.parametrize(
    ("name", "at", "before"),
    [
        ("qwen3_5_think", "open", "so {it} is\n</think>\n\n"),
        ("qwen3_5_think", "open", "</think>\n\n"),
        ("qwen3", "ahead", "<think>\n{hm}\n</think>\n\n"),
        ("qwen3", "ahead", ""),
        ("qwen3", "closed", ""),
        ("gemma4_v5", "ahead", "<|channel>thought\nhm\n<channel|>"),
        ("gptoss", "ahead", "<|channel|>final<|message|>"),
        (
            "gptoss",
            "ahead",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
    ],
)
def test_a_form_holds_after_the_reasoning(name, at, before):
    format_ = turn_format(template_tokenizer(name))
    form = compile_text(SchemaOutput(json_schema=SCHEMA), format_, at, vocabulary(name))
    assert accepts(name, form, before + json.dumps({"a": 1}))
    assert not accepts(name, form, before + json.dumps({"a": "1"}))
    assert not accepts(name, form, before)


def test_reasoning_that_the_prompt_has_closed_is_not_opened_again():
    format_ = turn_format(template_tokenizer("qwen3"))
    form = compile_text(SchemaOutput(json_schema=SCHEMA), format_, "closed", vocabulary("qwen3"))
    assert not accepts("qwen3", form, '<think>hm</think>{"a":1}')


def test_a_prompt_tells_where_its_reasoning_stands():
    format_ = turn_format(template_tokenizer("qwen3"))
    start = "<|im_start|>assistant\n"
    assert format_.reasoning_after(start) == "ahead"
    assert format_.reasoning_after(start + "<think>\n") == "open"
    assert format_.reasoning_after(start + "<think>\n\n</think>\n\n") == "closed"


def test_a_form_has_no_reasoning_where_the_template_shows_none():
    format_ = turn_format(template_tokenizer("qwen2_5"))
    form = compile_text(SchemaOutput(json_schema=SCHEMA), format_, "ahead", vocabulary("qwen2_5"))
    assert accepts("qwen2_5", form, '{"a":1}')
    assert not accepts("qwen2_5", form, '<think>\nhm\n</think>\n\n{"a":1}')
