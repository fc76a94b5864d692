"""POST /v1/responses and the routes of stored responses, on an engine that follows a script."""

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from core.records.tables import OutputItem, StoredResponse
from core.spec.generation import ChatPrompt
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine
from tests.contract.contract import check_schema
from tests.leaving import leave_when

RESPONSES = "/v1/responses"
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": True}


def asked(text: Any = "What is the answer?", **options: Any) -> dict[str, Any]:
    return {"model": "tunesmith/tiny", "input": text} | options


def create(client: httpx.Client, text: Any = "What is the answer?", **options: Any) -> Any:
    answer = client.post(RESPONSES, json=asked(text, **options))
    assert answer.status_code == 200, answer.text
    return answer.json()


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each under its own name and held against the contract."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        check_schema("ResponseStreamEvent", event)
        events.append(event)
    return events


def text_of(response: dict[str, Any]) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


def messages(engine: ScriptedEngine) -> list[tuple[str, str]]:
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return [(message["role"], message["content"]) for message in prompt.messages]


def test_answer_has_text_and_usage(client: httpx.Client) -> None:
    response = create(client)
    assert (response["status"], text_of(response)) == ("completed", ANSWER)
    assert response["id"].startswith("resp_")
    assert (response["model"], response["error"]) == ("tunesmith/tiny", None)
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (4, 4, 8)


def test_stream_says_the_same_as_the_plain_answer(client: httpx.Client) -> None:
    events = events_of(client.post(RESPONSES, json=asked(stream=True)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event.get("delta", "") for event in events) == ANSWER
    last = events[-1]["response"]
    assert (events[-1]["type"], text_of(last)) == ("response.completed", ANSWER)
    assert client.get(f"{RESPONSES}/{last['id']}").json() == last


def test_length_is_limited(client: httpx.Client) -> None:
    response = create(client, max_output_tokens=2)
    assert (response["status"], text_of(response)) == ("incomplete", "The answer")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None
    events = events_of(client.post(RESPONSES, json=asked(stream=True, max_output_tokens=2)))
    assert events[-1]["type"] == "response.incomplete"


def test_reasoning_and_logprobs_come_as_asked(client: httpx.Client) -> None:
    response = create(client, "think first", reasoning={"summary": "auto", "effort": "low"})
    assert response["output"][0]["summary"][0]["text"] == "Six times seven. Done."
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 6}
    response = create(client, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = response["output"][0]["content"][0]["logprobs"]
    assert "".join(token["token"] for token in logprobs) == ANSWER
    assert [other["logprob"] for other in logprobs[0]["top_logprobs"]] == [-0.5, -1.0]


def test_conversation_continues_from_a_stored_response(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    first = create(client, "Hello.", instructions="Be brief.")
    second = create(client, "And now?", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert messages(engine) == [
        ("user", "Hello."),
        ("assistant", ANSWER),
        ("user", "And now?"),
    ], "the instructions of the first request are not carried over"
    create(client, "Once more.", previous_response_id=second["id"])
    assert [role for role, _ in messages(engine)] == ["user", "assistant"] * 2 + ["user"]


def test_conversation_continues_from_items_sent_back(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    first = create(client, "Hello.")
    by_item = [
        {"role": "user", "content": "Hello."},
        *first["output"],
        {"role": "user", "content": "And now?"},
    ]
    create(client, by_item, store=False)
    expected = messages(engine)
    by_reference = [
        {"role": "user", "content": "Hello."},
        {"type": "item_reference", "id": first["output"][0]["id"]},
        {"role": "user", "content": "And now?"},
    ]
    create(client, by_reference)
    assert messages(engine) == expected
    twice = [*first["output"], {"role": "user", "content": "And now?"}]
    create(client, twice, previous_response_id=first["id"])
    assert messages(engine) == expected, "an item sent once more is read once"


def test_tool_loop(client: httpx.Client, engine: ScriptedEngine) -> None:
    question = {"role": "user", "content": "call twice"}
    first = create(client, [question], tools=[TOOL])
    calls = first["output"]
    assert [(call["type"], call["name"]) for call in calls] == [("function_call", "add")] * 2
    outputs = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": call["arguments"]}
        for call in calls
    ]
    for body in (
        asked(outputs, previous_response_id=first["id"], tools=[TOOL]),
        asked([question, *calls, *outputs], tools=[TOOL]),
    ):
        answer = client.post(RESPONSES, json=body)
        assert text_of(answer.json()) == ANSWER
        prompt = engine.requests[-1].prompt
        assert isinstance(prompt, ChatPrompt)
        assert [each["role"] for each in prompt.messages] == ["user", "assistant", "tool", "tool"]
        assert len(prompt.messages[1]["tool_calls"]) == 2


def test_stored_items_are_listed(client: httpx.Client) -> None:
    first = create(client, "Hello.")
    second = create(client, "And now?", previous_response_id=first["id"])
    path = f"{RESPONSES}/{second['id']}/input_items"
    page = client.get(path, params={"order": "asc", "limit": 2}).json()
    assert [item["role"] for item in page["data"]] == ["user", "assistant"]
    assert page["data"][1] == first["output"][0]
    assert page["has_more"] and page["last_id"] == page["data"][1]["id"]
    rest = client.get(path, params={"order": "asc", "after": page["last_id"]}).json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["And now?"]
    assert not rest["has_more"]
    assert client.get(path).json()["data"] == [*rest["data"], *page["data"][::-1]]
    assert client.get(path, params={"after": "msg_none"}).status_code == 404


def test_deleted_response_and_one_never_stored_are_not_found(client: httpx.Client) -> None:
    gone, never = create(client), create(client, store=False)
    assert (gone["store"], never["store"]) == (True, False)
    answer = client.delete(f"{RESPONSES}/{gone['id']}")
    assert answer.json() == {"id": gone["id"], "object": "response", "deleted": True}
    for response in (gone, never):
        path = f"{RESPONSES}/{response['id']}"
        for found in (client.get(path), client.delete(path), client.get(f"{path}/input_items")):
            assert (found.status_code, found.json()["error"]["code"]) == (404, "response_not_found")
        body = asked(previous_response_id=response["id"])
        refused = client.post(RESPONSES, json=body)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["param"], error["code"]) == (
            "previous_response_id",
            "previous_response_not_found",
        )
        reference = [{"type": "item_reference", "id": response["output"][0]["id"]}]
        assert client.post(RESPONSES, json=asked(reference)).status_code == 400


def test_expired_response_is_not_found(api: Api, client: httpx.Client) -> None:
    response = create(client)
    with api.database.reading() as session:
        row = session.query(StoredResponse).one()
        assert row.expires_at - row.created_at == pytest.approx(30 * 86_400, abs=60)
        assert session.query(OutputItem).one().id == response["output"][0]["id"]
    with api.database.writing() as session:
        session.execute(update(StoredResponse).values(expires_at=1.0))
    assert client.get(f"{RESPONSES}/{response['id']}").status_code == 404
    body = asked(previous_response_id=response["id"])
    assert client.post(RESPONSES, json=body).status_code == 400


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"input": "word " * 200}, "input", "context_length_exceeded"),
        ({"input": ""}, "input", "missing_required_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "unsupported_tool"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"model": "nobody"}, "model", "model_not_found"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content", "invalid_value"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_value"),
        ({"input": "be a classifier"}, "model", "not_a_generator"),
    ],
    ids=str,
)
def test_refusals_name_the_field(
    client: httpx.Client, options: dict[str, Any], param: str, code: str
) -> None:
    for stream in (False, True):
        answer = client.post(RESPONSES, json=asked() | options | {"stream": stream})
        error = answer.json()["error"]
        assert answer.status_code == (404 if code == "model_not_found" else 400)
        assert (error["param"], error["code"]) == (param, code)


def test_truncation_leaves_out_the_oldest(client: httpx.Client, engine: ScriptedEngine) -> None:
    long = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "ok"}]
    # the scripted engine counts the words of the last message only
    body = asked([*long, {"role": "user", "content": "word " * 101}], truncation="auto")
    answer = client.post(RESPONSES, json=body)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert [len(request.prompt.messages) for request in engine.requests] == [3, 1]  # type: ignore[union-attr]


def test_failure_of_the_engine_is_the_last_event(client: httpx.Client) -> None:
    events = events_of(client.post(RESPONSES, json=asked("fail", stream=True)))
    assert events[-1]["type"] == "response.failed"
    error = events[-1]["response"]["error"]
    assert error == {"code": "server_error", "message": "The device is out of memory."}
    assert client.post(RESPONSES, json=asked("fail")).status_code == 500


def test_full_engine_is_a_status(client: httpx.Client) -> None:
    for stream in (False, True):
        answer = client.post(RESPONSES, json=asked("be full", stream=stream))
        assert answer.status_code == 429


@pytest.mark.parametrize("stream", [False, True])
def test_generation_ends_when_the_client_leaves(
    client: httpx.Client, engine: ScriptedEngine, stream: bool
) -> None:
    body = asked("never end", stream=stream)
    leave_when(lambda: engine.requests, client, RESPONSES, body)
    assert engine.was_left.wait(60)


def test_only_background_responses_are_cancelled_or_streamed_again(client: httpx.Client) -> None:
    path = f"{RESPONSES}/{create(client)['id']}"
    assert client.post(f"{path}/cancel").json()["error"]["code"] == "invalid_value"
    assert client.get(path, params={"stream": True}).json()["error"]["param"] == "stream"
