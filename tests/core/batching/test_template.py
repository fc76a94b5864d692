"""What is remembered of a template depends on no request, and keeps no tokenizer in memory."""

import copy
import gc
import weakref

import pytest

from core.batching.render import render_example, render_prompt
from core.batching.template import ChatTemplate, TemplateContext
from core.datasets.formats import ChatExample, CompletionExample
from core.errors import InvalidRequest
from tests.conversations import KINDS, TOOL, answer, call, user
from tests.templates import template_tokenizer

QUESTION = user("Why?")


def fresh(name="qwen2_5"):
    return copy.deepcopy(template_tokenizer(name))


@pytest.mark.parametrize("name", ["qwen2_5", "llama3_1", "lfm2_v2"])
def test_a_refused_request_changes_nothing_for_the_next(name):
    tokenizer, other = fresh(name), fresh(name)
    high = TemplateContext({"reasoning_effort": "high"})
    with pytest.raises(InvalidRequest) as caught:
        render_prompt(tokenizer, [QUESTION], [TOOL], high)
    assert caught.value.param == "reasoning_effort"
    assert render_prompt(tokenizer, [QUESTION], [TOOL]) == render_prompt(other, [QUESTION], [TOOL])


def test_reasoning_effort_is_what_the_template_knows():
    tokenizer = fresh("qwen3")
    off, on = (
        tokenizer.decode(render_prompt(tokenizer, [QUESTION], context=TemplateContext(variables)))
        for variables in ({"reasoning_effort": "none"}, {"reasoning_effort": "high"})
    )
    assert off.endswith("<think>\n\n</think>\n\n")
    assert on.endswith("<|im_start|>assistant\n")


def test_a_tokenizer_leaves_memory_when_nobody_holds_it():
    tokenizer = fresh()
    render_prompt(tokenizer, [QUESTION])
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None


def test_thousands_of_calls_are_rendered():
    calls = [call(f"c{number}", city="Oslo") for number in range(6_000)]
    messages = (QUESTION, answer("", tool_calls=calls))
    row = render_example(fresh(), ChatExample(messages, (TOOL,)))
    assert row.trained[-1]


def test_tools_keep_the_order_of_their_keys():
    form = ChatTemplate(template_tokenizer("gptoss")).source([TOOL]).format
    (tool,) = form.tools([{"type": "function", "function": {"name": "f"}}])
    assert next(iter(tool["function"])) == "name"


@pytest.mark.parametrize("completion", ["Write <|im_end|> at its end.", "It ends.<|im_end|>"])
def test_a_completion_ends_where_it_ends(chat_tokenizer, completion):
    row = render_example(chat_tokenizer, CompletionExample("How? ", completion))
    assert [token == chat_tokenizer.eos_token_id for token in row.tokens].count(True) == 1
    text = chat_tokenizer.decode(row.tokens)
    assert text == "How? " + completion.removesuffix("<|im_end|>") + "<|im_end|>"


def test_every_shape_is_remembered_in_little_room():
    tokenizer = fresh()
    template = ChatTemplate(tokenizer)
    for messages, tools in KINDS.values():
        template.prompt(messages[:1], tools)
    memory = template.source().memory
    assert memory and all(len(key) == 16 for key in memory)
