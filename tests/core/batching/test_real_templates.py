"""The chat templates that people use, as TRL ships them, with conversations of every kind.

What a template can show is found with transformers alone: in one of the forms in which messages
are commonly given, every prompt holds all that came before, and the text up to an answer holds the
answer.
"""

import json
import re
from functools import cache
from itertools import product
from os.path import commonprefix  # of characters, which is what is meant here

import pytest

from core.batching.render import render_examples, render_prompt
from core.batching.rows import InvalidRow
from core.batching.template import ChatTemplate
from core.batching.turns import end_token_ids, turn_of
from core.datasets.formats import ChatExample
from tests.conversations import KINDS
from tests.templates import TEMPLATES, template_source, template_tokenizer

ORIGINALS = [name for name in TEMPLATES if f"{name}_training" in TEMPLATES]


def rows_of(tokenizer, kind):
    messages, tools = KINDS[kind]
    return render_examples(tokenizer, [(1, ChatExample(tuple(messages), tuple(tools)))])


def trained_turns(kind):
    messages, _ = KINDS[kind]
    return [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1)
    ]


def words_of(message):
    """What a reader has to find of a message."""
    words = [message["content"]] if message["content"] else []
    for call in message.get("tool_calls", ()):
        words += [call["function"]["name"], *map(str, call["function"]["arguments"].values())]
    return words


def given(messages, parts, null, text, short):
    """Messages in one of the forms that templates take."""
    for message in messages:
        form = {key: value for key, value in message.items() if key != "weight"}
        if "tool_calls" in form:
            form["tool_calls"] = [call_in_form(call, text, short) for call in form["tool_calls"]]
        if form["role"] == "tool":
            form |= {"name": "get_weather"} | ({"tool_call_id": "a1b2c3d4e"} if short else {})
        if null and not form["content"]:
            form["content"] = None
        elif parts:
            form["content"] = [{"type": "text", "text": form["content"]}]
        yield form


def call_in_form(call, text, short):
    function = call["function"]
    arguments = json.dumps(function["arguments"]) if text else function["arguments"]
    id_ = "a1b2c3d4e" if short else call["id"]
    return {**call, "id": id_, "function": {**function, "arguments": arguments}}


@cache
def can_show(name, kind):
    """Whether transformers alone renders every turn of the conversation in full."""
    tokenizer, (messages, tools) = template_tokenizer(name), KINDS[kind]
    names = [tool["function"]["name"] for tool in tools]
    for thoughts, form in product((as_field, as_text), product((False, True), repeat=4)):
        try:
            if all(
                all(word in prompt for m in messages[:turn] for word in [*names, *words_of(m)])
                and all(text.count(word) > prompt.count(word) for word in words_of(messages[turn]))
                and shows_thought(messages[turn], prompt, text)
                for turn in trained_turns(kind)
                for prompt, text in [
                    both(tokenizer, list(given(messages, *form)), tools, turn, thoughts)
                ]
            ):
                return True
        except Exception:  # whatever a template raises
            continue
    return False


def as_field(message):
    return message


def as_text(message):
    thought = f"<think>\n{message.get('reasoning_content')}\n</think>\n\n"
    plain = {key: value for key, value in message.items() if key != "reasoning_content"}
    content = message["content"] or ""
    if isinstance(content, list):
        return {**plain, "content": [{"type": "text", "text": thought + content[0]["text"]}]}
    return {**plain, "content": thought + content}


def shows_thought(message, prompt, text):
    """A prompt that closes the thought leaves no place for one."""
    thought, end = message.get("reasoning_content", ""), prompt.rstrip()
    if thought and end.endswith(("</think>", "<channel|>", "<|END_THINKING|>")):
        return False
    return thought in text or end.endswith("<think>")


def both(tokenizer, messages, tools, turn, thoughts):
    answer = thoughts(messages[turn]) if "reasoning_content" in messages[turn] else messages[turn]
    return [
        tokenizer.apply_chat_template(
            some, tools=tools or None, tokenize=False, add_generation_prompt=prompting
        )
        for some, prompting in ((messages[:turn], True), ([*messages[:turn], answer], False))
    ]


def answers_of(row, tokenizer):
    """The trained runs of a row, each with the ids before it."""
    starts = [
        index for index, trained in enumerate(row.trained) if trained and not row.trained[index - 1]
    ]
    for start in starts:
        end = next((i for i in range(start, row.length) if not row.trained[i]), row.length)
        yield list(row.tokens[:start]), tokenizer.decode(row.tokens[start:end])


def is_trained(name, kind):
    try:
        rows_of(template_tokenizer(name), kind)
    except InvalidRow:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_trained_that_a_template_leaves_out(kind):
    assert [n for n in TEMPLATES if is_trained(n, kind) and not can_show(n, kind)] == []


def test_nearly_all_that_templates_can_show_is_trained():
    showable = [(name, kind) for name in TEMPLATES for kind in KINDS if can_show(name, kind)]
    refused = [(name, kind) for name, kind in showable if not is_trained(name, kind)]
    assert len(showable) > 650
    assert len(refused) <= 0.03 * len(showable), refused


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_follow_the_endpoints_prompt_and_end_where_the_engine_stops(name):
    tokenizer = template_tokenizer(name)
    ends = end_token_ids(ChatTemplate(tokenizer)) | {tokenizer.eos_token_id}
    for kind, (messages, tools) in KINDS.items():
        try:
            rows = rows_of(tokenizer, kind)
        except InvalidRow:
            continue
        found = [answer for row in rows for answer in answers_of(row, tokenizer)]
        assert len(found) == len(trained_turns(kind)), kind
        for turn, (before, text) in zip(trained_turns(kind), found, strict=True):
            assert before == render_prompt(tokenizer, messages[:turn], tools), kind
            message = messages[turn]
            wanted = [*words_of(message), message.get("reasoning_content", "")]
            assert all(word in text for word in wanted), (kind, text)
            others = [m for m in messages if m is not message]
            assert not any(w in text for m in others for w in words_of(m) if w not in wanted), kind
        assert all(row.tokens[-1] in ends for row in rows), kind


@pytest.mark.parametrize("name", ORIGINALS)
def test_masks_are_those_of_trl_where_its_training_template_writes_the_same_text(name):
    tokenizer = template_tokenizer(name)
    template = ChatTemplate(tokenizer)
    compared = 0
    for kind, (messages, tools) in KINDS.items():
        if kind == "weight 0":
            continue
        try:
            rows = rows_of(tokenizer, kind)
        except InvalidRow:
            continue
        form = template.source(tools).format
        marked = tokenizer.apply_chat_template(
            form.messages(messages),
            tools=tools or None,
            chat_template=template_source(f"{name}_training"),
            return_assistant_tokens_mask=True,
            return_dict=True,
            tokenize=True,
        )
        theirs = decoded(tokenizer, marked["input_ids"], marked["assistant_masks"])
        for row in rows:
            ours = decoded(tokenizer, row.tokens, row.trained)
            text = "".join(letter for letter, _ in ours)
            if not "".join(letter for letter, _ in theirs).startswith(text):
                continue
            compared += 1
            earlier = len(rows) > 1  # in a row of its own an answer stands alone
            start = next(i for i, (_, trained) in enumerate(ours) if trained) if earlier else 0
            trained = ours[start:]
            missing = "".join(
                letter
                for i, (letter, is_) in enumerate(trained)
                if is_ and not theirs[start + i][1]
            )
            assert missing in ENDS_THAT_TRL_LEAVES_OUT, kind
            more = {i for i, (_, is_) in enumerate(theirs[: len(ours)]) if is_ and not ours[i][1]}
            assert all(i < start or i in written_for_the_answer(template, kind, text) for i in more)
    assert compared or name in WRITTEN_OTHERWISE


def written_for_the_answer(template, kind, text):
    """What TRL trains beside answers: the header that the endpoint's prompt ends with, and the
    white space after the token that ends a turn."""
    messages, tools = KINDS[kind]
    found = set()
    for turn in trained_turns(kind):
        prompt = template.prompt(messages[:turn], tools)
        shared = commonprefix(  # noqa: RUF071
            [prompt, template.render(messages[:turn], tools)]
        )
        found |= set(range(len(shared.rstrip()), len(prompt)))
        ends = re.finditer(
            re.escape(turn_of(template, messages, tools, turn).answer) + r"\s*", text
        )
        found |= {i for end in ends for i in range(end.start(), end.end())}
    return found


ENDS_THAT_TRL_LEAVES_OUT = ("", "<|tool_response>")
"""Gemma 4 stops after its calls at the token that opens their results."""

WRITTEN_OTHERWISE = {"deepseek_r1_distill", "deepseekv3", "llava_next"}
"""The prompt opens a thought that TRL's templates leave out, or no turn of theirs shows an end."""


def decoded(tokenizer, tokens, trained):
    return [
        (letter, bool(is_trained))
        for token, is_trained in zip(tokens, trained, strict=True)
        for letter in tokenizer.decode([token])
    ]
