"""The request for an item: templates, references, and what the item lacks."""

from typing import Any

import pytest

from core.errors import InvalidRequest
from core.evals.messages import request_body
from core.spec.evals import SamplingSpec

CHAT = "/v1/chat/completions"


def sampling(messages: dict[str, Any], url: str = CHAT, **params: Any) -> SamplingSpec:
    return SamplingSpec.model_validate(
        {"url": url, "model": "tiny", "input_messages": messages, "params": params}
    )


def template(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"type": "template", "template": messages}


def test_template_has_the_values_of_the_item() -> None:
    messages = template(
        {"role": "developer", "content": "Speak {{item.language}}."},
        {"role": "user", "content": {"type": "input_text", "text": "{{ item.turns[0] }}"}},
    )
    body = request_body(
        sampling(messages, temperature=0.5), {"language": "Welsh", "turns": ["Shwmae", 1]}
    )
    assert body == {
        "model": "tiny",
        "temperature": 0.5,
        "messages": [
            {"role": "developer", "content": "Speak Welsh."},
            {"role": "user", "content": [{"type": "text", "text": "Shwmae"}]},
        ],
    }


def test_braces_of_a_user_are_not_rendered_again() -> None:
    messages = template({"role": "user", "content": "{{item.a}}"})
    body = request_body(sampling(messages), {"a": "{{item.b}}", "b": "secret"})
    assert body["messages"][0]["content"] == "{{item.b}}"


def test_response_has_input_with_its_own_types_of_parts_and_is_not_stored() -> None:
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    messages = template(
        {"role": "user", "content": ["{{item.a}}", image]}, {"role": "assistant", "content": ["b"]}
    )
    body = request_body(sampling(messages, "/v1/responses"), {"a": "hello"})
    assert body["store"] is False
    assert body["input"] == [
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}, image]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
    ]


def test_image_of_a_chat_is_in_the_form_of_a_chat() -> None:
    image = {"type": "input_image", "image_url": "{{item.url}}", "detail": "low"}
    body = request_body(
        sampling(template({"role": "user", "content": [image]})), {"url": "https://x/a.png"}
    )
    [part] = body["messages"][0]["content"]
    assert part == {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}}


def test_reference_is_a_list_of_messages_or_a_text() -> None:
    reference = {"type": "item_reference", "item_reference": "item.chat.turns"}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert request_body(sampling(reference), {"chat": {"turns": turns}})["messages"] == turns
    body = request_body(sampling(reference), {"chat": {"turns": "hi"}})
    assert body["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "item", [{}, {"chat": 1}, {"chat": {"turns": []}}, {"chat": {"turns": [1]}}]
)
def test_reference_to_something_else_is_an_error_of_the_item(item: dict[str, Any]) -> None:
    reference = {"type": "item_reference", "item_reference": "item.chat.turns"}
    with pytest.raises(InvalidRequest, match=r"item\.chat\.turns must be a list of messages"):
        request_body(sampling(reference), item)


def test_missing_variable_is_an_error_of_the_item() -> None:
    messages = template({"role": "user", "content": "{{item.question}}"})
    with pytest.raises(InvalidRequest, match=r"item\.question") as refused:
        request_body(sampling(messages), {"answer": "4"})
    assert refused.value.code == "invalid_item"
