"""Chat completions with `store`: kept after the answer, found again, graded by evals."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from api.stored_completions.storing import MAX_BYTES
from core.records.tables import StoredCompletion
from tests.api.evaluating import EXACT, finished, items, start
from tests.api.live import Api
from tests.api.scripted_engine import ANSWER, ScriptedEngine
from worker import housekeeping

MODEL = "tunesmith/tiny"


@pytest.fixture
def openai(api: Api) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def stored(openai: OpenAI, text: str = "hello", **fields: Any) -> str:
    """Return the id of a completion that is stored by now."""
    messages: Any = [{"role": "user", "content": text}]
    body = {"model": MODEL, "messages": messages, "store": True} | fields
    id_ = openai.chat.completions.create(**body).id
    wait_for(openai, id_)
    return id_


def wait_for(openai: OpenAI, id_: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            openai.chat.completions.retrieve(id_)
            return
        except NotFoundError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def count(api: Api) -> int:
    with api.database.reading() as session:
        return session.query(StoredCompletion).count()


def test_stored_completion_is_found_changed_and_deleted(api: Api, openai: OpenAI) -> None:
    id_ = stored(openai, metadata={"use": "a"}, temperature=0.5)
    found: Any = openai.chat.completions.retrieve(id_)
    assert found.choices[0].message.content == ANSWER
    assert (found.metadata, found.temperature, found.object) == (
        {"use": "a"},
        0.5,
        "chat.completion",
    )
    messages = list(openai.chat.completions.messages.list(id_))
    assert [(each.id, each.role, each.content) for each in messages] == [
        (f"{id_}-0", "user", "hello")
    ]
    updated: Any = openai.chat.completions.update(id_, metadata={"use": "b"})
    assert updated.metadata == {"use": "b"}
    assert list(openai.chat.completions.list(metadata={"use": "a"})) == []
    assert [each.id for each in openai.chat.completions.list(metadata={"use": "b"})] == [id_]
    assert openai.chat.completions.delete(id_).deleted
    with pytest.raises(NotFoundError):
        openai.chat.completions.retrieve(id_)


def test_without_store_nothing_is_kept(api: Api, openai: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    for store in (None, False):
        openai.chat.completions.create(model=MODEL, messages=messages, store=store)
    assert count(api) == 0


def test_stream_is_stored_whole(openai: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    chunks = list(
        openai.chat.completions.create(model=MODEL, messages=messages, store=True, stream=True)
    )
    wait_for(openai, chunks[0].id)
    found = openai.chat.completions.retrieve(chunks[0].id)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert found.choices[0].message.content == text == ANSWER
    assert found.usage is not None and found.usage.completion_tokens > 0


def test_streamed_calls_keep_their_ids(openai: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "call twice"}]
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": {}}}
    stream = openai.chat.completions.create(
        model=MODEL, messages=messages, tools=[tool], store=True, stream=True
    )
    chunks = list(stream)
    wait_for(openai, chunks[0].id)
    found: Any = openai.chat.completions.retrieve(chunks[0].id)
    streamed = [
        call.id
        for chunk in chunks
        for choice in chunk.choices
        for call in choice.delta.tool_calls or ()
    ]
    assert len(streamed) == 2
    assert [call.id for call in found.choices[0].message.tool_calls] == streamed
    assert found.tools[0]["function"]["name"] == "add"


def test_answer_that_fails_or_is_too_long_is_not_stored(
    api: Api, client: httpx.Client, openai: OpenAI
) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "fail"}], "store": True}
    for stream in (True, False):
        client.post("/v1/chat/completions", json=body | {"stream": stream})
    body["messages"] = [{"role": "user", "content": "h" * MAX_BYTES}]
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    stored(openai)
    assert count(api) == 1


def test_metadata_that_cannot_be_stored_is_refused_before_the_answer(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "store": True}
    for metadata in ({"a": "x" * 513}, {str(n): "" for n in range(17)}, {"a" * 65: ""}):
        answer = client.post("/v1/chat/completions", json=body | {"metadata": metadata})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"].startswith("metadata")
    assert engine.requests == []
    assert client.post("/v1/chat/completions", json={**body, "store": False}).status_code == 200


def test_list_pages_in_both_orders_and_by_model(openai: OpenAI) -> None:
    ids = [stored(openai) for _ in range(3)]
    assert [each.id for each in openai.chat.completions.list(limit=1)] == ids
    assert [each.id for each in openai.chat.completions.list(order="desc", limit=2)] == ids[::-1]
    assert [each.id for each in openai.chat.completions.list(model=MODEL)] == ids
    assert list(openai.chat.completions.list(model="other")) == []


def test_expired_completion_is_gone_and_then_deleted(api: Api, openai: OpenAI) -> None:
    id_ = stored(openai, metadata={"a": "b"})
    with api.database.writing() as session:
        session.query(StoredCompletion).update({"expires_at": 1.0})
    with pytest.raises(NotFoundError):
        openai.chat.completions.retrieve(id_)
    assert list(openai.chat.completions.list()) == []
    housekeeping.forget_responses(api.database)
    assert count(api) == 0


def new_eval(client: httpx.Client, type_: str, **config: Any) -> str:
    criterion = {**EXACT, "input": "{{sample.output_text}}", "reference": ANSWER}
    body = {"data_source_config": {"type": type_, **config}, "testing_criteria": [criterion]}
    answer = client.post("/v1/evals", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_stored_completions_are_graded_without_sampling_and_sampled_again(
    api: Api, client: httpx.Client, openai: OpenAI, engine: ScriptedEngine
) -> None:
    stored(openai, "hello", metadata={"use": "a"})
    stored(openai, "answer in json", metadata={"use": "a"})
    stored(openai, "hello", metadata={"use": "b"})
    eval_id = new_eval(client, "stored_completions", metadata={"use": "a"})
    engine.requests.clear()
    source: dict[str, Any] = {"type": "completions", "source": {"type": "stored_completions"}}
    run = finished(api, client, start(client, eval_id, source))
    assert engine.requests == []
    assert run["result_counts"] == {"total": 2, "errored": 0, "failed": 1, "passed": 1}
    [failed] = items(client, run, status="fail")
    assert failed["datasource_item"]["input"] == [{"role": "user", "content": "answer in json"}]
    assert failed["datasource_item"]["metadata"] == {"use": "a"}
    again = finished(api, client, start(client, eval_id, source | {"model": MODEL}))
    assert again["result_counts"]["total"] == len(engine.requests) == 2
    source["source"] = {"type": "stored_completions", "limit": 1}
    assert start(client, eval_id, source)["result_counts"]["total"] == 1


def test_stored_responses_are_graded(
    api: Api, client: httpx.Client, openai: OpenAI, engine: ScriptedEngine
) -> None:
    openai.responses.create(model=MODEL, input="hello", instructions="Be brief.", user="ann")
    openai.responses.create(model=MODEL, input="answer in json", user="ann")
    openai.responses.create(model=MODEL, input="hello", user="bob")
    eval_id = new_eval(client, "logs")

    def run_of(**filters: Any) -> Any:
        source = {"type": "responses", "source": {"type": "responses", **filters}}
        return finished(api, client, start(client, eval_id, source))

    run = run_of()
    assert run["result_counts"] == {"total": 3, "errored": 0, "failed": 1, "passed": 2}
    assert run_of(users=["ann"])["result_counts"]["total"] == 2
    brief = run_of(instructions_search="brief")
    [item] = items(client, brief)
    assert [message["content"] for message in item["datasource_item"]["input"]] == [
        "Be brief.",
        "hello",
    ]
    path = f"/v1/evals/{eval_id}/runs"
    none = {"type": "responses", "source": {"type": "responses", "model": "other"}}
    answer = client.post(path, json={"data_source": none})
    assert answer.json()["error"]["code"] == "no_items"
