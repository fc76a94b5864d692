"""A key's caller: which rows it sees, and which routes its scopes open."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.datastructures import Headers

from api.auth.caller import ALL_SCOPES, Caller
from api.auth.keys import StaticKey
from api.auth.middleware import FOR_CALLERS
from tests.api.live import Api, running_api


def headers(value: str) -> Headers:
    return Headers({"authorization": value})


def test_the_key_opens_everything_of_its_project() -> None:
    key = StaticKey(SecretStr("secret"), "shop")
    caller = key.caller(headers("Bearer secret"))
    assert caller == Caller("shop", "static", ALL_SCOPES)
    assert key.caller(headers("bearer  secret ")) == caller


@pytest.mark.parametrize("sent", ["", "secret", "Bearer", "Bearer Secret", "Basic secret"])
def test_anything_else_has_no_caller(sent: str) -> None:
    assert StaticKey(SecretStr("secret"), "shop").caller(headers(sent)) is None


def test_without_a_key_everybody_is_its_caller() -> None:
    keyless = StaticKey(None, "shop")
    assert keyless.caller(headers("")) == Caller("shop", "static", ALL_SCOPES)
    assert keyless.caller(headers("Bearer what the client sends anyway")) is not None


@pytest.fixture
def restricted(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Api]]:
    """`restricted("files")` restricts the key of a running API to these scopes."""
    with running_api(tmp_path, sqlite_url, api_key="secret", project="shop") as api:

        def restrict(*scopes: str) -> Api:
            full = StaticKey(SecretStr("secret"), "shop").caller(headers("Bearer secret"))
            assert full is not None
            caller = replace(full, scopes=frozenset(scopes))
            monkeypatch.setattr(StaticKey, "caller", lambda self, headers: caller)
            return api

        yield restrict


def test_every_route_needs_a_scope(restricted: Callable[..., Api]) -> None:
    api = restricted()
    routes = [
        (method, path)
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
        if path.startswith(FOR_CALLERS)
    ]
    assert ("get", "/v1/models") in routes and len(routes) > 20
    with httpx.Client(base_url=api.url) as client:
        for method, path in routes:
            answer = client.request(method, path)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (403, "insufficient_permissions"), path
            assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/files", "files"),
        ("/v1/fine_tuning/jobs", "fine_tuning"),
        ("/v1/fine_tuning/masks/mask-x", "fine_tuning"),
        ("/v1/fine_tuning/strategies", "fine_tuning"),
        ("/v1/fine_tuning/estimates/estimate-x", "fine_tuning"),
        ("/v1/models", "models"),
        ("/v1/chat/completions", "inference"),
        ("/v1/completions", "inference"),
        ("/v1/embeddings", "inference"),
        ("/v1/classifications", "inference"),
        ("/tokenize", "inference"),
        ("/detokenize", "inference"),
    ],
)
def test_a_scope_opens_its_routes_and_no_others(
    restricted: Callable[..., Api], path: str, scope: str
) -> None:
    method = "POST" if scope == "inference" else "GET"
    with httpx.Client() as client:
        others = restricted(*(ALL_SCOPES - {scope}))
        refused = client.request(method, others.url + path)
        assert refused.status_code == 403
        message = refused.json()["error"]["message"]
        assert f"The API key 'static' does not have the scope '{scope}'" in message
        assert client.request(method, restricted(scope).url + path).status_code != 403


@pytest.mark.parametrize("missing", ["models", "inference"])
def test_a_speed_test_needs_two_scopes(restricted: Callable[..., Api], missing: str) -> None:
    path = "/v1/models/x/speed"
    with httpx.Client() as client:
        refused = client.get(restricted(*(ALL_SCOPES - {missing})).url + path)
        assert refused.status_code == 403
        assert f"does not have the scope '{missing}'" in refused.json()["error"]["message"]
        assert client.get(restricted("models", "inference").url + path).status_code == 404


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/evals"])
@pytest.mark.parametrize("missing", ["files", "inference"])
def test_batches_and_evals_need_two_scopes(
    restricted: Callable[..., Api], missing: str, path: str
) -> None:
    with httpx.Client() as client:
        refused = client.get(restricted(*(ALL_SCOPES - {missing})).url + path)
        assert refused.status_code == 403
        assert f"does not have the scope '{missing}'" in refused.json()["error"]["message"]
        assert client.get(restricted("files", "inference").url + path).status_code == 200


def test_a_grader_that_asks_a_model_needs_two_scopes(restricted: Callable[..., Api]) -> None:
    """A key for jobs is no way to ask models."""
    plain = {"type": "string_check", "name": "s", "input": "a", "reference": "a", "operation": "eq"}
    message = {"role": "user", "content": "Hi"}
    asks = {"type": "score_model", "name": "m", "model": "tunesmith/tiny", "input": [message]}
    url = f"{restricted('fine_tuning').url}/v1/fine_tuning/alpha/graders/validate"
    with httpx.Client() as client:
        assert client.post(url, json={"grader": plain}).status_code == 200
        refused = client.post(url, json={"grader": asks})
        assert refused.status_code == 403
        assert "does not have the scope 'inference'" in refused.json()["error"]["message"]
        restricted("fine_tuning", "inference")
        assert client.post(url, json={"grader": asks}).status_code == 200


def test_the_project_of_the_settings_owns_what_the_key_creates(
    restricted: Callable[..., Api],
) -> None:
    api = restricted(*ALL_SCOPES)
    row = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    with httpx.Client(base_url=api.url) as client:
        uploaded = client.post(
            "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("a.jsonl", row)}
        ).json()
        job = client.post(
            "/v1/fine_tuning/jobs",
            json={"model": "tunesmith/tiny", "training_file": uploaded["id"]},
        ).json()
    assert job["organization_id"] == "shop"
