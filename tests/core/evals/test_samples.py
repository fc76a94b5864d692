"""The answers that are graded, from rows and from responses."""

from core.evals.samples import completion_of_response, plain_messages, sample_of_row

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "4"}}


def test_row_without_sample_has_none() -> None:
    assert sample_of_row({"item": {}}) is None


def test_row_with_a_text_has_its_json_too() -> None:
    sample = sample_of_row({"item": {}, "sample": {"output_text": '{"a": 1}'}})
    assert sample is not None
    assert (sample.output_text, sample.output_json) == ('{"a": 1}', {"a": 1})
    assert sample.choices[0]["message"]["content"] == '{"a": 1}'


def test_row_with_choices_keeps_them() -> None:
    sample = sample_of_row({"item": {}, "sample": {"model": "m", "choices": [CHOICE]}})
    assert sample is not None
    assert (sample.output_text, sample.choices) == ("4", (CHOICE,))


def test_text_beside_other_choices_wins() -> None:
    row = {"item": {}, "sample": {"output_text": "5", "choices": [CHOICE]}}
    sample = sample_of_row(row)
    assert sample is not None and sample.output_text == "5"


def test_tools_beside_a_text_are_kept() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sample = sample_of_row({"item": {}, "sample": {"output_text": "", "output_tools": [call]}})
    assert sample is not None and sample.output_tools == (call,)


def test_response_is_a_completion_with_its_calls_and_usage() -> None:
    response = {
        "model": "tiny",
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "One "}]},
            {"type": "message", "content": [{"type": "output_text", "text": None}]},
            {"type": "message", "content": [{"type": "output_text", "text": "two"}]},
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "call_1"},
        ],
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 4,
            "total_tokens": 7,
        },
    }
    completion = completion_of_response(response)
    [choice] = completion["choices"]
    assert choice["message"]["content"] == "One two"
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert completion["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    cut = completion_of_response({**response, "status": "incomplete"})
    assert cut["choices"][0]["finish_reason"] == "length"


def test_messages_are_shown_as_texts() -> None:
    image = {"type": "image_url", "image_url": {"url": "u"}}
    [shown, empty] = plain_messages(
        [
            {"role": "user", "content": [{"type": "text", "text": "Look: "}, image]},
            {"role": "assistant", "content": None, "tool_calls": [1]},
        ]
    )
    assert shown == {
        "role": "user",
        "content": 'Look: {"type": "image_url", "image_url": {"url": "u"}}',
    }
    assert empty == {"role": "assistant", "content": "", "tool_calls": [1]}
