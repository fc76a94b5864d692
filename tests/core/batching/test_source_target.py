import pytest

from core.batching.rows import InvalidRow
from core.batching.source_target import render_source, render_source_targets
from core.datasets.formats import ChatExample, CompletionExample
from core.errors import InvalidRequest

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "Why?"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {}}}


def answer(text, **fields):
    return {"role": "assistant", "content": text, **fields}


def texts(tokenizer, *examples):
    rows = render_source_targets(tokenizer, list(enumerate(examples, start=1)))
    return [(row.line, tokenizer.decode(row.source), tokenizer.decode(row.target)) for row in rows]


@pytest.mark.parametrize(
    ("model_type", "source", "target"),
    [("t5", "Why?</s>", "No.</s>"), ("bart", "<s>Why?</s>", "<s>No.</s>")],
)
def test_plain_texts_get_the_special_tokens_of_the_family(
    tiny_tokenizer, model_type, source, target
):
    tokenizer = tiny_tokenizer(model_type)
    assert texts(tokenizer, CompletionExample("Why?", "No.")) == [(1, source, target)]


def test_question_without_a_chat_template_is_its_plain_text_after_the_system_text(tiny_tokenizer):
    tokenizer = tiny_tokenizer("t5")
    chats = ChatExample((QUESTION, answer("No."))), ChatExample((SYSTEM, QUESTION, answer("No.")))
    assert texts(tokenizer, *chats) == [
        (1, "Why?</s>", "No.</s>"),
        (2, "Be brief.\n\nWhy?</s>", "No.</s>"),
    ]
    source = tokenizer.decode(render_source(tokenizer, [SYSTEM, QUESTION]))
    assert source == "Be brief.\n\nWhy?</s>"


CALL = {"id": "c", "type": "function", "function": {"name": "clock", "arguments": {}}}


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (ChatExample((QUESTION, answer("a"), QUESTION, answer("b"))), "several turns"),
        (ChatExample((QUESTION, answer("No.")), (TOOL,)), "not support tools"),
        (ChatExample((QUESTION, answer("", tool_calls=[CALL]))), "not support tool calls"),
        (ChatExample((QUESTION, answer("No.", weight=0))), "weight 0"),
    ],
)
def test_conversation_that_needs_a_template_is_refused_with_its_line(
    tiny_tokenizer, example, reason
):
    with pytest.raises(InvalidRow, match=rf"line 2: .*{reason}"):
        texts(tiny_tokenizer("t5"), CompletionExample("a", "b"), example)


def test_request_that_needs_a_template_is_refused(tiny_tokenizer):
    with pytest.raises(InvalidRequest, match="several turns") as caught:
        render_source(tiny_tokenizer("t5"), [QUESTION, answer("a"), QUESTION])
    assert caught.value.param == "messages"
    with pytest.raises(InvalidRequest) as caught:
        render_source(tiny_tokenizer("t5"), [{"role": "oracle", "content": "a"}])
    assert caught.value.param == "messages[0].role"


def test_chat_template_gives_a_row_for_every_trained_answer(chat_tokenizer):
    turns = (QUESTION, answer("a", weight=0), QUESTION, answer("b"), QUESTION, answer("c"))
    first, second = texts(chat_tokenizer, ChatExample(turns))
    assert (first[2], second[2]) == ("b<|im_end|>", "c<|im_end|>")
    assert first[1].endswith("Why?<|im_end|>\n<|im_start|>assistant\n")
    assert second[1].startswith(first[1] + "b<|im_end|>")
    source = render_source(chat_tokenizer, turns[:3])
    assert chat_tokenizer.decode(source) == first[1]


def test_rows_come_in_the_order_of_their_lines(chat_tokenizer):
    chat = ChatExample((QUESTION, answer("a")))
    rows = texts(chat_tokenizer, CompletionExample("a", "b"), chat, CompletionExample("a", "c"))
    assert [line for line, *_ in rows] == [1, 2, 3]
