"""Which rows become questions, and what graders see of them."""

from core.datasets.examples import (
    ChatExample,
    CompletionExample,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.verdict.questions import form_of, item_of, question_of

USER = {"role": "user", "content": "Where?"}
CALL = {"id": "c", "type": "function", "function": {"name": "find", "arguments": {"ü": 1}}}
TOOLS = ({"type": "function", "function": {"name": "find", "parameters": {}}},)


def answer(content: str, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": content, **more}


def test_last_trained_answer_of_a_conversation_is_the_reference() -> None:
    chat = ChatExample((USER, answer("Here.", weight=1), USER, answer("There.", weight=0)))
    question = question_of(4, chat)
    assert question is not None
    assert (question.line, question.messages, question.reference) == (4, (USER,), "Here.")
    both = question_of(4, ChatExample((USER, answer("Here."), USER, answer("There."))))
    assert both is not None and both.reference == "There."
    assert both.messages == (USER, answer("Here."), USER)


def test_calls_are_as_clients_write_them() -> None:
    question = question_of(1, ChatExample((USER, answer("", tool_calls=[CALL])), TOOLS))
    assert question is not None
    assert question.reference is None and question.tools == TOOLS
    assert question.tool_calls[0]["function"] == {"name": "find", "arguments": '{"ü": 1}'}
    assert item_of(question)["tool_calls"][0]["function"]["name"] == "find"


def test_other_examples() -> None:
    pair = CompletionExample("a", " b")
    completed = question_of(2, pair)
    assert completed is not None and (completed.text, completed.reference) == ("a", " b")
    assert question_of(2, PreferenceExample(pair, CompletionExample("a", "c"))) == completed
    assert question_of(2, RatedExample(pair, is_good=True)) == completed
    assert question_of(2, RatedExample(pair, is_good=False)) is None
    assert question_of(2, TextExample("a")) is None
    assert question_of(2, ChatExample((USER, answer("x", weight=0)))) is None
    labelled = question_of(2, LabelExample("a", ("x", "y"), multi=True))
    assert labelled is not None
    item = item_of(labelled)
    assert (item["prompt"], item["labels"], item["label"]) == ("a", ["x", "y"], "")


def test_form_follows_the_example() -> None:
    pair = CompletionExample("a", "b")
    chat = ChatExample((USER, answer("x")))
    assert form_of(chat) == form_of(PreferenceExample(chat, chat)) == "chat"
    assert (
        form_of(pair) == form_of(TextExample("a")) == form_of(RatedExample(pair, False)) == "text"
    )
    assert form_of(LabelExample("a", ("x",), multi=False)) == "labels"
