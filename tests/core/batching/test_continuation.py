"""The last message can be continued, as by transformers, in every template that people use."""

import pytest

from core.batching.continuation import prompt_with_ending
from core.batching.render import render_prompt
from core.batching.template import ChatTemplate, Unrenderable
from core.errors import InvalidRequest
from tests.conversations import answer, user
from tests.templates import TEMPLATES, template_tokenizer

QUESTION = user("Count from one to three, please.")
PARTIAL = "One, two,"


def of_transformers(tokenizer, messages, **options) -> str | None:
    """Return what transformers renders, in one of the forms of content; None if it refuses."""
    in_parts = [
        {**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages
    ]
    for form in (messages, in_parts):
        try:
            text = tokenizer.apply_chat_template(form, tokenize=False, **options)
        except Exception:
            continue
        if all(each["content"].strip() in text for each in messages):
            return text
    return None


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_message_is_continued_as_by_transformers(name):
    tokenizer = template_tokenizer(name)
    messages = [QUESTION, answer(PARTIAL)]
    expected = of_transformers(tokenizer, messages, continue_final_message=True)
    template = ChatTemplate(tokenizer)
    try:
        found = prompt_with_ending(template, messages, (), "final_message")
    except Unrenderable:
        found = None
    if expected is None:
        return  # ours may know more forms of messages
    assert found is not None
    assert found == expected
    assert found.endswith(PARTIAL)


@pytest.mark.parametrize("space", [" ", "\n", "  \n"])
@pytest.mark.parametrize("name", ["qwen3", "llama3", "phi3", "gemma", "deepseekv3"])
def test_white_space_at_the_end_is_kept_if_the_template_keeps_it(name, space):
    if name not in TEMPLATES:
        pytest.skip(f"TRL ships no template {name}")
    tokenizer = template_tokenizer(name)
    messages = [QUESTION, answer(PARTIAL + space)]
    expected = of_transformers(tokenizer, messages, continue_final_message=True)
    found = prompt_with_ending(ChatTemplate(tokenizer), messages, (), "final_message")
    assert found == expected
    assert found.removesuffix(space).endswith(PARTIAL)


@pytest.mark.parametrize("name", TEMPLATES)
def test_without_a_generation_prompt_the_messages_are_all(name):
    tokenizer = template_tokenizer(name)
    messages = [QUESTION, answer("One, two, three.")]
    expected = of_transformers(tokenizer, messages, add_generation_prompt=False)
    if expected is None:
        return
    assert prompt_with_ending(ChatTemplate(tokenizer), messages, (), "nothing") == expected


def test_control_tokens_in_a_continued_message_are_text(chat_tokenizer):
    end = chat_tokenizer.eos_token
    messages = [QUESTION, answer(f"One {end} two")]
    tokens = render_prompt(chat_tokenizer, messages, ending="final_message")
    plain = render_prompt(chat_tokenizer, [QUESTION, answer("One")], ending="final_message")
    assert chat_tokenizer.decode(tokens).endswith(f"One {end} two")
    end_id = chat_tokenizer.convert_tokens_to_ids(end)
    assert tokens.count(end_id) == plain.count(end_id)


def test_an_empty_message_is_continued_after_its_header(chat_tokenizer):
    messages = [QUESTION, answer("")]
    found = chat_tokenizer.decode(render_prompt(chat_tokenizer, messages, ending="final_message"))
    header = chat_tokenizer.decode(render_prompt(chat_tokenizer, [QUESTION]))
    assert found.strip() == header.strip()


@pytest.mark.parametrize(
    ("last", "field"),
    [
        (user("And?"), "messages[1].role"),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": "{}"},
                    }
                ],
            },
            "messages[1].tool_calls",
        ),
    ],
    ids=["user", "calls"],
)
def test_only_the_text_of_the_assistant_is_continued(chat_tokenizer, last, field):
    with pytest.raises(InvalidRequest, match="continue_final_message") as caught:
        render_prompt(chat_tokenizer, [QUESTION, last], ending="final_message")
    assert caught.value.param == field
