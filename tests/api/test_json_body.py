"""Bodies whose parsing would hold up everybody else are refused, and large ones take turns."""

import asyncio
import json

import httpx
import pytest

from api.json_body import PromptRoute, Turns

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def test_large_bodies_pass_one_per_round_of_the_loop() -> None:
    async def rounds() -> list[int]:
        turns, passed, number = Turns(), [], 0

        async def large_body() -> None:
            await turns.wait()
            passed.append(number)

        waiting = [asyncio.create_task(large_body()) for _ in range(5)]
        while len(passed) < len(waiting):
            await asyncio.sleep(0)
            number += 1
        return passed

    passed = asyncio.run(rounds())
    assert len(set(passed)) == len(passed)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"n": ' + b"9" * 10_000 + b"}", "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b"[" * 5_000, "invalid_json"),
        (b"[" * PromptRoute.max_cost, "invalid_request"),
        (b"[" + b"{}," * 50_000 + b"{}]", "invalid_request"),
    ],
    ids=["digits", "encoding", "depth", "brackets", "objects"],
)
def test_a_body_that_is_no_json_or_too_much_of_it_is_refused(
    client: httpx.Client, content: bytes, code: str
) -> None:
    answer = client.post(CHAT, content=content, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "tools[1].function.parameters.a b",
            '{"tools": [{}, {"function": {"parameters": {"a b": %s}}}]}',
        ),
        ("metadata", '{"metadata": %s}'),
        (None, "%s"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_wherever_it_is(
    client: httpx.Client, path: str | None, body: str, number: str
) -> None:
    """The database does not store it, and no client can read it."""
    for route in (CHAT, "/v1/evals", "/v1/fine_tuning/sweeps"):
        answer = client.post(route, content=body % number, headers=JSON)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, path)
        assert "finite number" in error["message"]


def test_as_many_tokens_as_a_long_context_holds_are_let_through(client: httpx.Client) -> None:
    body = {"model": "tunesmith/tiny", "prompt": [5] * 131_072}
    error = client.post("/v1/completions", content=json.dumps(body), headers=JSON).json()["error"]
    assert error["code"] == "context_length_exceeded"  # the engine's word, so it came that far


def test_a_name_of_megabytes_is_not_sent_back(client: httpx.Client) -> None:
    answer = client.post(CHAT, content=json.dumps({"x" * 1_000_000: 1}), headers=JSON)
    assert answer.status_code == 400
    assert len(answer.text) < 3000


def test_thousands_of_unknown_fields_are_one_fault(client: httpx.Client) -> None:
    body = {f"field{number}": 1 for number in range(5_000)}
    error = client.post(CHAT, content=json.dumps(body), headers=JSON).json()["error"]
    assert "5000" in error["message"]
