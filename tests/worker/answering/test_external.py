"""External endpoints: what is sent, what is sent again, and what ends as an error."""

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from core.catalog.external import Endpoints, ExternalEndpoint
from core.errors import InvalidRequest, TunesmithError
from core.spec.evals import ExternalModel
from tests.api.live import serve
from worker.answering import external
from worker.answering.external import ExternalClient, ExternalError

CHAT = "/v1/chat/completions"
CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "message": {"role": "assistant", "content": "4"},
}
NO_USAGE = {
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
    "prompt_tokens_details": {"cached_tokens": 0},
}
ANSWER = {"model": "gpt-x", "choices": [CHOICE], "usage": NO_USAGE}
MODEL = ExternalModel(endpoint="cloud", model="org/gpt-x")
Answers = list[Callable[[], Response]]


class Endpoint:
    """A server that gives its answers in turn, the last one for ever."""

    def __init__(self) -> None:
        self.answers: Answers = [lambda: JSONResponse(ANSWER)]
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.at_once = self.most_at_once = 0
        self.url = ""
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["POST", "GET"])])

    async def _answer(self, request: Request) -> Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        body = json.loads(await request.body() or b"{}")
        self.seen.append((request.url.path, dict(request.headers), body))
        await asyncio.sleep(0.02)
        self.at_once -= 1
        return (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(external, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(external, "LONGEST_PAUSE_SECONDS", 0.01)
    endpoint = Endpoint()
    with serve(endpoint.app) as endpoint.url:
        yield endpoint


def ask(endpoint: Endpoint, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
    registered = ExternalEndpoint(
        name="cloud",
        base_url=fields.pop("base_url", f"{endpoint.url}/v1/"),
        api_key=fields.pop("api_key", SecretStr("secret")),
        **fields,
    )

    async def run() -> list[dict[str, Any]]:
        client = ExternalClient(Endpoints([registered]))
        try:
            body = {"model": "cloud/org/gpt-x", "messages": [{"role": "user", "content": "hi"}]}
            return await asyncio.gather(*(client.ask(CHAT, MODEL, body) for _ in range(count)))
        finally:
            await client.close()

    return asyncio.run(run())


def test_request_has_the_stock_form_and_the_name_of_the_model_there(endpoint: Endpoint) -> None:
    assert ask(endpoint) == [ANSWER]
    [(path, headers, body)] = endpoint.seen
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert body == {"model": "org/gpt-x", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_failure_that_may_pass_is_asked_again(endpoint: Endpoint, status: int) -> None:
    endpoint.answers[:0] = [lambda: Response("busy", status)] * 2
    assert ask(endpoint) == [ANSWER]
    assert len(endpoint.seen) == 3


def test_failure_that_stays_is_an_error_with_the_reason(endpoint: Endpoint) -> None:
    error = {"error": {"message": "You have no credit."}}
    endpoint.answers = [lambda: JSONResponse(error, 429, headers={"retry-after": "0"})]
    with pytest.raises(
        ExternalError, match=r"cloud does not answer: status 429: You have no credit"
    ):
        ask(endpoint)
    assert len(endpoint.seen) == external.MAX_TRIES


def test_rejected_request_is_not_repeated(endpoint: Endpoint) -> None:
    endpoint.answers = [lambda: JSONResponse({"error": {"message": "No such model."}}, 404)]
    with pytest.raises(InvalidRequest, match="status 404: No such model"):
        ask(endpoint)
    assert len(endpoint.seen) == 1


def test_redirect_is_not_followed(endpoint: Endpoint) -> None:
    endpoint.answers = [lambda: RedirectResponse(f"{endpoint.url}/internal", 307)]
    with pytest.raises(ExternalError, match="status 307"):
        ask(endpoint)
    assert [path for path, _, _ in endpoint.seen] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    "content", ["not json", "[1]", "[" * 100_000, "{}", '{"choices": []}', '{"choices": [{}]}']
)
def test_answer_that_is_no_object_is_an_error(endpoint: Endpoint, content: str) -> None:
    endpoint.answers = [lambda: Response(content)]
    with pytest.raises(ExternalError, match="answers with"):
        ask(endpoint)


def test_answer_in_parts_is_a_text(endpoint: Endpoint) -> None:
    """EvolvingLMMs-Lab/lmms-eval 1218."""
    parts = [{"type": "text", "text": "4"}, {"type": "text", "text": None}, {"type": "image"}]
    endpoint.answers = [lambda: JSONResponse({"choices": [{"message": {"content": parts}}]})]
    [answer] = ask(endpoint)
    assert answer["choices"] == [CHOICE]


def test_half_of_a_surrogate_pair_is_replaced(endpoint: Endpoint) -> None:
    content = '{"choices": [{"message": {"content": "a\\ud83d b\\ud83d\\ude00"}}]}'
    endpoint.answers = [lambda: Response(content)]
    [answer] = ask(endpoint)
    assert answer["choices"][0]["message"]["content"] == "a? b\U0001f600"


def test_compressed_answer_is_refused_before_it_is_read(endpoint: Endpoint) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    headers = {"content-encoding": "gzip"}
    endpoint.answers = [lambda: Response(bomb, headers=headers)]
    with pytest.raises(ExternalError, match="encoding 'gzip'"):
        ask(endpoint)
    assert endpoint.seen[0][1]["accept-encoding"] == "identity"


def test_key_that_no_header_can_have_is_an_error(endpoint: Endpoint) -> None:
    with pytest.raises(ExternalError, match="cannot be asked"):
        ask(endpoint, api_key=SecretStr("ключ"))


def test_answer_without_end_is_cut(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_ANSWER_BYTES", 1 << 20)
    endpoint.answers = [lambda: Response(b" " * (2 << 20))]
    with pytest.raises(ExternalError, match="more than 1 MiB"):
        ask(endpoint)


def test_endpoint_that_only_fails_is_not_asked_for_every_item(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 50,000 items and 5 minutes for each answer, a run would last for months."""
    monkeypatch.setattr(external, "GIVE_UP_SECONDS", 0.1)
    endpoint.answers = [lambda: Response("busy", 503)]
    with pytest.raises(ExternalError) as caught:
        ask(endpoint, at_once=1, count=200)
    assert "answered nothing for" in caught.value.message or "does not answer" in str(caught.value)
    assert len(endpoint.seen) < 3 * external.MAX_TRIES


def test_slow_answer_is_given_up(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_TRIES", 2)
    with pytest.raises(ExternalError, match=r"no answer within 0\.001 s"):
        ask(endpoint, timeout_seconds=0.001)


def test_endpoint_that_is_down_is_an_error(endpoint: Endpoint) -> None:
    with pytest.raises(ExternalError, match="cloud does not answer: ConnectError"):
        ask(endpoint, base_url="http://127.0.0.1:9/v1")


def test_no_more_requests_at_once_than_allowed(endpoint: Endpoint) -> None:
    assert ask(endpoint, count=9, at_once=3) == [ANSWER] * 9
    assert endpoint.most_at_once == 3


def test_unregistered_endpoint_is_an_error() -> None:
    async def run() -> None:
        client = ExternalClient(Endpoints())
        try:
            await client.ask(CHAT, MODEL, {})
        finally:
            await client.close()

    with pytest.raises(TunesmithError, match="'cloud' is no longer registered"):
        asyncio.run(run())
