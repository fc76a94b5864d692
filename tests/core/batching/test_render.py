import pytest

from core.batching.render import render_example, render_examples, render_prompt
from core.batching.rows import InvalidRow
from core.batching.tokenization import plain_prompt
from core.datasets.formats import ChatExample, CompletionExample
from core.errors import InvalidRequest

QUESTION = {"role": "user", "content": "Why?"}


def answer(text, **fields):
    return {"role": "assistant", "content": text, **fields}


def trained_text(tokenizer, row):
    """The trained tokens, decoded run by run."""
    runs, previous = [], False
    for token, trained in zip(row.tokens, row.trained, strict=True):
        if trained and not previous:
            runs.append([])
        if trained:
            runs[-1].append(token)
        previous = trained
    return [tokenizer.decode(run) for run in runs]


def chat_row(tokenizer, *messages, tools=()):
    return render_example(tokenizer, ChatExample(messages, tools))


def test_only_the_answer_and_its_end_token_are_trained(chat_tokenizer):
    row = chat_row(
        chat_tokenizer, {"role": "system", "content": "Be brief."}, QUESTION, answer("No.")
    )
    assert trained_text(chat_tokenizer, row) == ["No.<|im_end|>"]


def test_prompt_tokens_are_the_beginning_of_the_training_row(chat_tokenizer):
    row = chat_row(chat_tokenizer, QUESTION, answer("No."))
    prompt = render_prompt(chat_tokenizer, [QUESTION])
    assert list(row.tokens[: len(prompt)]) == prompt
    assert row.trained.index(True) == len(prompt)


def test_every_turn_of_a_conversation_is_trained(chat_tokenizer):
    row = chat_row(chat_tokenizer, QUESTION, answer("one"), QUESTION, answer("two"))
    assert trained_text(chat_tokenizer, row) == ["one<|im_end|>", "two<|im_end|>"]


def test_messages_with_weight_zero_are_not_trained_and_not_shown(chat_tokenizer):
    messages = (QUESTION, answer("one", weight=0), QUESTION, answer("two", weight=1))
    row = chat_row(chat_tokenizer, *messages)
    assert trained_text(chat_tokenizer, row) == ["two<|im_end|>"]
    assert "weight" not in chat_tokenizer.decode(row.tokens)


def test_generation_marks_of_the_template_are_believed(chat_tokenizer):
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m['content'] }}{% endif %}\n{% endfor %}"
    )
    row = chat_row(chat_tokenizer, QUESTION, answer("one"), QUESTION, answer("two"))
    assert trained_text(chat_tokenizer, row) == ["one<|im_end|>", "two<|im_end|>"]
    row = chat_row(chat_tokenizer, QUESTION, answer("one", weight=0), QUESTION, answer("two"))
    assert trained_text(chat_tokenizer, row) == ["two<|im_end|>"]


def test_tool_calls_are_trained_and_tool_answers_are_not(chat_tokenizer):
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"z": 1}}}
    tool = {"type": "function", "function": {"name": "clock", "parameters": {}}}
    messages = (
        QUESTION,
        answer("", tool_calls=[call]),
        {"role": "tool", "content": "noon", "tool_call_id": "c1"},
        answer("It is noon."),
    )
    row = chat_row(chat_tokenizer, *messages, tools=(tool,))
    first, second = trained_text(chat_tokenizer, row)
    assert first == '[{"name": "clock", "arguments": {"z": 1}}]<|im_end|>'
    assert second == "It is noon.<|im_end|>"
    assert chat_tokenizer.decode(row.tokens).startswith("<|im_start|>tools\n")


def test_end_of_text_takes_the_place_of_an_end_that_is_plain_white_space(chat_tokenizer):
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    row = chat_row(chat_tokenizer, QUESTION, answer("No."))
    assert trained_text(chat_tokenizer, row) == ["No.<|im_end|>"]


def test_turn_that_the_template_rewrites_later_gets_a_row_for_each_answer(chat_tokenizer):
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}{% if loop.last %} (last){% endif %}: "
        "{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    example = ChatExample((QUESTION, answer("one"), QUESTION, answer("two")))
    first, second = render_examples(chat_tokenizer, [(1, example)])
    assert trained_text(chat_tokenizer, first) == ["one<|im_end|>"]
    assert trained_text(chat_tokenizer, second) == ["two<|im_end|>"]
    assert "one" in chat_tokenizer.decode(second.tokens)


def test_refusal_of_the_template_names_line_and_reason(chat_tokenizer):
    chat_tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    examples = [(7, ChatExample((QUESTION, answer("No."))))]
    with pytest.raises(InvalidRow, match=r"line 7: .*roles must alternate"):
        render_examples(chat_tokenizer, examples)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'No' + 1 }}", "concatenate"),
        ("{{ 'No' | int + ('a'.index('b')) }}", "substring"),
        ("{% for", "unexpected"),
        ("{{ messages[9].x.y }}", "no element 9"),
    ],
)
def test_whatever_breaks_a_template_names_line_and_reason(chat_tokenizer, template, reason):
    chat_tokenizer.chat_template = template
    with pytest.raises(InvalidRow, match=rf"line 7: .*{reason}"):
        render_examples(chat_tokenizer, [(7, ChatExample((QUESTION, answer("No."))))])


def test_base_without_chat_template_cannot_train_conversations(chat_tokenizer):
    chat_tokenizer.chat_template = None
    with pytest.raises(InvalidRow, match="no chat template"):
        chat_row(chat_tokenizer, QUESTION, answer("No."))
    with pytest.raises(InvalidRequest, match="no chat template"):
        render_prompt(chat_tokenizer, [QUESTION])


def test_prompt_takes_messages_in_the_form_of_openai(chat_tokenizer):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"z": 1}'}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_call_id": "c1"},
    ]
    text = chat_tokenizer.decode(render_prompt(chat_tokenizer, messages))
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert '[{"name": "f", "arguments": {"z": 1}}]' in text
    assert text.endswith("<|im_start|>assistant\n")


def test_prompt_with_an_unknown_role_says_where(chat_tokenizer):
    with pytest.raises(InvalidRequest, match="role") as caught:
        render_prompt(chat_tokenizer, [{"role": "oracle", "content": "?"}])
    assert caught.value.param == "messages[0].role"


def test_completion_and_end_token_are_trained(chat_tokenizer):
    row = render_example(chat_tokenizer, CompletionExample("2+2=", "4"))
    assert trained_text(chat_tokenizer, row) == ["4<|im_end|>"]
    assert chat_tokenizer.decode(row.tokens) == "2+2=4<|im_end|>"


def test_prompt_and_completion_are_tokenized_apart_as_when_serving(chat_tokenizer):
    # "abcd" is one token, which the endpoint never sends: its prompt ends with "ab"
    row = render_example(chat_tokenizer, CompletionExample("x ab", "cd!"))
    assert trained_text(chat_tokenizer, row) == ["cd!<|im_end|>"]
    prompt = plain_prompt(chat_tokenizer, "x ab")
    assert list(row.tokens[: len(prompt)]) == prompt


def test_characters_of_several_tokens_are_trained_whole(chat_tokenizer):
    row = render_example(chat_tokenizer, CompletionExample("ä", "ö"))
    assert row.trained == (False, False, True, True, True)


def test_first_token_is_never_trained(chat_tokenizer):
    row = render_example(chat_tokenizer, CompletionExample("", "xyz"))
    assert row.trained == (False, True, True, True)


def test_rows_come_in_the_order_of_the_file(chat_tokenizer):
    examples = [(n, CompletionExample("p", "c" * n)) for n in range(1, 6)]
    rows = render_examples(chat_tokenizer, examples)
    assert [row.line for row in rows] == [1, 2, 3, 4, 5]
    assert [len(row.tokens) for row in rows] == [3, 4, 5, 6, 7]
