"""Faults of masks and templates that people have reported elsewhere, each tried here.

The number of a report stands with each; what it says was found out from its text, and none of its
code is used.
"""

import copy

import pytest

from core.batching.render import render_example, render_examples, render_prompt
from core.batching.turn_probe import turn_format
from core.datasets.formats import ChatExample, parse_row
from tests.conversations import TOOL, answer, call, user
from tests.templates import template_tokenizer

HEAD = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = HEAD + "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}" + PROMPT


def marked(body: str) -> str:
    """A template whose assistant turns are `body`, with generation marks of some kind."""
    return (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}" + body + "{% else %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}" + PROMPT
    )


MARKS = {
    "trl#5988: without the end token": "{{ '<|im_start|>assistant\n' }}{% generation %}"
    "{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>\n' }}",
    "trl#5627: with the header": "{% generation %}{{ '<|im_start|>assistant\n' + m['content'] }}"
    "{{ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}",
    "transformers#30650: with the newline": "{{ '<|im_start|>assistant\n' }}{% generation %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endgeneration %}",
    "open-instruct#1879: inside a macro": "{% set turn %}{% generation %}{{ m['content'] }}"
    "{% endgeneration %}{% endset %}{{ '<|im_start|>assistant\n' + turn + '<|im_end|>\n' }}",
    "llama3#104: the template always prompts": "{{ '<|im_start|>assistant\n' + m['content'] }}"
    "{{ '<|im_end|>\n' }}{% if loop.last %}{{ '<|im_start|>assistant\n' }}{% endif %}",
}


def trained(tokenizer, *messages, tools=()):
    found = []
    for row in render_examples(tokenizer, [(1, ChatExample(tuple(messages), tuple(tools)))]):
        for index, token in enumerate(row.tokens):
            if row.trained[index] and not row.trained[index - 1]:
                found.append([])
            if row.trained[index]:
                found[-1].append(token)
    return [tokenizer.decode(ids) for ids in found]


@pytest.mark.parametrize("marks", MARKS)
def test_whatever_a_template_marks_the_answer_and_its_end_are_trained(chat_tokenizer, marks):
    chat_tokenizer.chat_template = marked(MARKS[marks])
    turns = user("2+2?"), answer("Four."), user("3+3?"), answer("Six.")
    assert trained(chat_tokenizer, *turns) == ["Four.<|im_end|>", "Six.<|im_end|>"]


def test_template_that_never_prompts_has_its_header_in_the_prompt(chat_tokenizer):
    """transformers#26539"""
    chat_tokenizer.chat_template = CHATML.removesuffix(PROMPT)
    assert trained(chat_tokenizer, user("2+2?"), answer("Four.")) == ["Four.<|im_end|>"]
    prompt = chat_tokenizer.decode(render_prompt(chat_tokenizer, [user("2+2?")]))
    assert prompt.endswith("<|im_start|>assistant\n")


def test_beginning_of_text_stands_once(chat_tokenizer):
    """open-r1#462, llama-cpp-python#1439: written by the template and added by the tokenizer"""
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<|endoftext|>"})
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    row = render_example(tokenizer, ChatExample((user("Hi"), answer("Hello."))))
    assert row.tokens.count(tokenizer.bos_token_id) == 1


def test_end_is_trained_where_padding_is_the_same_token(chat_tokenizer):
    """trl#6357"""
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    assert trained(tokenizer, user("2+2?"), answer("Four.")) == ["Four.<|im_end|>"]


def test_turn_without_an_end_gets_the_token_that_opens_the_next():
    """trl#6044: GLM's turns end where the next role begins"""
    tokenizer = template_tokenizer("glm4moe")
    (answered,) = trained(tokenizer, user("2+2?"), answer("Four."))
    assert answered.endswith("Four.<|user|>")
    called = answer("", tool_calls=[call("c1", city="Oslo")])
    (calling,) = trained(tokenizer, user("Weather?"), called, tools=[TOOL])
    assert calling.endswith("</tool_call><|observation|>")


@pytest.mark.parametrize("name", ["qwen3_8", "qwen3_5_think", "deepseek_r1_distill"])
def test_thought_that_is_closed_but_not_opened_is_one_thought(name):
    """trl#6361: the prompt has opened it"""
    content = "2+2 equals 4.\n</think>\n\nThe answer is 4."
    example = parse_row({"messages": [user("2+2?"), answer(content)]}, "chat")
    assert isinstance(example, ChatExample)
    (text,) = trained(template_tokenizer(name), *example.messages)
    assert text.count("</think>") == 1 and "<think>" not in text


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_shown_under_the_name_that_the_template_reads(chat_tokenizer, key):
    tokenizer = copy.deepcopy(chat_tokenizer)
    thought = f"{{% if m['{key}'] %}}{{{{ '[THINK]' + m['{key}'] + '[/THINK]' }}}}{{% endif %}}"
    tokenizer.chat_template = CHATML.replace("{{ m['content']", thought + "{{ m['content']")
    answered = {**answer("Four."), "reasoning_content": "Two and two."}
    assert trained(tokenizer, user("2+2?"), answered) == [
        "[THINK]Two and two.[/THINK]Four.<|im_end|>"
    ]
    reasoning = turn_format(tokenizer).reasoning
    assert reasoning is not None and "THINK" in reasoning.opening


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "nemotron_3_nano", "glm4moe"])
def test_answer_that_mentions_the_tag_is_no_thought(name):
    """trl#6363: templates split at the tag"""
    text = "Split at `</think>` and keep the rest."
    (answered,) = trained(template_tokenizer(name), user("How?"), answer(text))
    assert text in answered


@pytest.mark.parametrize("name", ["smolvlm", "idefics3", "llava_next"])
def test_text_is_shown_by_templates_that_want_parts(name):
    """trl#5871: a string is dropped in silence"""
    tokenizer = template_tokenizer(name)
    (answered,) = trained(tokenizer, user("Capital?"), answer("Oslo."))
    assert "Oslo." in answered
    assert "Capital?" in tokenizer.decode(render_prompt(tokenizer, [user("Capital?")]))


def test_result_of_a_call_has_the_name_of_its_function():
    """vllm#42188: Gemma 4 writes the name, which OpenAI's messages do not have"""
    tokenizer = template_tokenizer("gemma4")
    messages = [
        user("Weather?"),
        answer("", tool_calls=[call("c1", city="Oslo")]),
        {"role": "tool", "content": "7 degrees", "tool_call_id": "c1"},
    ]
    text = tokenizer.decode(render_prompt(tokenizer, messages, [TOOL]))
    assert "response:get_weather{" in text


def test_developer_is_system_where_templates_know_no_developer():
    """sglang#40082: Phi-3 leaves the role out"""
    tokenizer = template_tokenizer("phi3")
    messages = [{"role": "developer", "content": "Say BANANA."}, user("Hi")]
    assert "Say BANANA." in tokenizer.decode(render_prompt(tokenizer, messages))


def test_no_content_is_not_written_as_the_word_none():
    """renderers#131"""
    tokenizer = template_tokenizer("glm4moe")
    messages = [
        user("Weather?"),
        {"role": "assistant", "content": None, "tool_calls": [wire_call()]},
        {"role": "tool", "content": "7 degrees", "tool_call_id": "c1"},
    ]
    assert "None" not in tokenizer.decode(render_prompt(tokenizer, messages, [TOOL]))


def wire_call():
    function = {"name": "get_weather", "arguments": '{"city": "東京 <&> \\"Köln\\""}'}
    return {"id": "c1", "type": "function", "function": function}


def test_arguments_are_written_as_they_are(chat_tokenizer):
    """transformers#31100, mistral.rs#2363: escaped for HTML or to ASCII"""
    tokenizer = template_tokenizer("qwen2_5")
    example = parse_row(
        {"messages": [user("?"), answer("", tool_calls=[wire_call()])], "tools": [TOOL]}, "chat"
    )
    assert isinstance(example, ChatExample)
    (text,) = trained(tokenizer, *example.messages, tools=example.tools)
    assert "東京 <&>" in text and "Köln" in text
