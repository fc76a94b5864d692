"""Hostile requests that the API must reject: `python -m bench.hostile_bodies URL [CALLERS]`.

Sends each to a running API, several concurrently, and prints the responses as lines of JSON.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import httpx

CHAT, TEXT, LABEL = "/v1/chat/completions", "/v1/completions", "/v1/classifications"
JOBS = "/v1/fine_tuning/jobs"
MODEL = "tunesmith/tiny"
HELLO = [{"role": "user", "content": "Hi"}]
HUGE = 10**12


@dataclass(frozen=True)
class Hostile:
    name: str
    path: str
    encode: Callable[[], bytes]
    param: str | None
    """The field that the error names; None for the body as a whole."""
    may_be_answered: bool = False
    """Looks expensive, but is handled cheaply."""

    @cached_property
    def content(self) -> bytes:
        """The body. Some have megabytes, so each is encoded at its first use."""
        return self.encode()


def bodies() -> list[Hostile]:
    return [*_numbers(), *_lists(), *_shapes(), *_prompts(), *_forms()]


def _chat(name: str, param: str | None, /, **fields: Any) -> Hostile:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 5} | fields
    return Hostile(name, CHAT, lambda: json.dumps(body).encode(), param)


def _text(name: str, param: str, /, **fields: Any) -> Hostile:
    body = {"model": MODEL, "prompt": "Hi", "max_tokens": 5} | fields
    return Hostile(name, TEXT, lambda: json.dumps(body).encode(), param)


def _schema(name: str, schema: dict[str, Any], harmless: bool = False) -> Hostile:
    form = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": schema}}
    refused = _chat(name, "response_format", response_format=form)
    return replace(refused, may_be_answered=harmless)


def _numbers() -> Iterator[Hostile]:
    """Values that are too large, negative, or not a number, in every numeric field."""
    for field in ("n", "max_tokens"):
        for value in (HUGE, -1, 0, 1e300, float("nan")):
            yield _chat(f"{field} {value}", field, **{field: value})
    yield _chat("max_completion_tokens", "max_completion_tokens", max_completion_tokens=HUGE)
    yield _chat("seed", "seed", seed=10**30)
    yield _chat("top_logprobs", "top_logprobs", logprobs=True, top_logprobs=HUGE)
    for field in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        for value in (float("nan"), float("inf"), -HUGE, HUGE):
            yield _chat(f"{field} {value}", field, **{field: value})
    for key, value in (("5", float("nan")), ("5", HUGE), (str(HUGE), 1), ("-1", 1)):
        yield _chat(f"logit_bias {key} {value}", f"logit_bias.{key}", logit_bias={key: value})
    yield _chat("logit_bias beyond the vocabulary", "logit_bias", logit_bias={"9999999999": 1})
    for field in ("logprobs", "best_of", "max_tokens", "n", "seed"):
        yield _text(f"text {field}", field, **{field: HUGE**2})
    digits = f'{{"model": "{MODEL}", "messages": [], "n": {"9" * 100_000}}}'
    yield Hostile("100,000 digits", CHAT, digits.encode, None)


def _lists() -> Iterator[Hostile]:
    """Oversized lists and texts."""
    yield _chat("1 MB of stop texts", "stop[0]", stop=["x" * 250_000] * 4)
    yield _chat("a stop text of 1 MB", "stop", stop="x" * 1_000_000)
    yield _chat("100,000 stop texts", "stop", stop=["x"] * 100_000)
    yield _chat("100,000 numbers to stop at", "stop", stop=[1] * 100_000)
    biases: dict[str, Any] = {str(number): 1 for number in range(30_000)}
    yield _chat("30,000 biased tokens", "logit_bias", logit_bias=biases)
    biases = {f"a{number}": "b" for number in range(30_000)}
    yield _chat("30,000 wrong biases", "logit_bias", logit_bias=biases)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    yield _chat("10,000 tools", None, tools=[tool] * 10_000)
    yield _chat("5,000 tools", "tools", tools=[tool] * 5_000)
    pairs = {str(number): 1 for number in range(30_000)}
    yield _chat("30,000 pairs of metadata", "metadata", metadata=pairs)


def _shapes() -> Iterator[Hostile]:
    """JSON that is too large, too deep, too wide, or invalid."""
    yield Hostile("20 MB", CHAT, lambda: b'{"messages": "' + b"x" * 20_000_000 + b'"}', None)
    for names in (1_000_000, 100_000, 30_000):
        yield Hostile(f"{names:,} names", CHAT, partial(_object_of, names), None)
    yield Hostile("100,000 names for a job", JOBS, partial(_object_of, 100_000), None)
    yield Hostile("9,000 names for a job", JOBS, partial(_object_of, 9_000), "model")
    yield Hostile("100,000 brackets", CHAT, lambda: b"[" * 100_000, None)
    deep = b"[" * 900 + b"]" * 900
    yield Hostile(
        "900 brackets",
        CHAT,
        lambda: (
            b'{"model": "%s", "messages": [{"role": "user", "content": %s}]}'
            % (MODEL.encode(), deep)
        ),
        None,
    )
    yield Hostile("not UTF-8", CHAT, lambda: b'{"model": "\xff"}', None)
    yield Hostile("a name of 3 MB", CHAT, lambda: b'{"' + b"x" * 3_000_000 + b'": 1}', "messages")
    yield _chat("NUL", "model", model="a\x00")
    yield _chat("stream_options", "stream_options", stream_options={str(n): 1 for n in range(9999)})


def _prompts() -> Iterator[Hostile]:
    """Oversized prompts."""
    yield _chat("100,000 messages", None, messages=HELLO * 100_000)
    yield _chat("10,000 messages", "messages", messages=HELLO * 10_000)
    yield _chat("2,000 messages", "messages", messages=HELLO * 2_000)
    yield _chat(
        "a message of 3 MB", "messages", messages=[{"role": "user", "content": "a" * 3 * 10**6}]
    )
    yield _chat(
        "just short of too long", "messages", messages=[{"role": "user", "content": "a " * 32_000}]
    )
    parts = [{"type": "text", "text": "a"}] * 10_000
    yield _chat("10,000 parts", "messages", messages=[{"role": "user", "content": parts}])
    yield _chat("half a character", "messages", messages=[{"role": "user", "content": "\ud800"}])
    yield _chat("no messages", "messages[0]", messages=[1] * 100_000)
    yield _text("100,000 prompts", "prompt", prompt=["a"] * 100_000)
    yield _text("prompts of all kinds", "prompt[1]", prompt=[[0], "a", 1] * 20_000)
    yield _text("30,000 lists of tokens", "prompt", prompt=[[0]] * 30_000)
    yield _text("131,072 tokens", "prompt", prompt=[5] * 131_072)
    yield _text("a token of 10^12", "prompt[1]", prompt=[5, HUGE])
    yield _text("a token that is NaN", "prompt[1]", prompt=[5, float("nan")])
    texts = {"model": MODEL, "input": ["a"] * 100_000}
    yield Hostile("100,000 texts to label", LABEL, lambda: json.dumps(texts).encode(), "input")


def _forms() -> Iterator[Hostile]:
    """Schemas with exploding grammars, and some that only look like it."""
    any_of: list[Any] = [{"properties": {f"p{number}": {}}} for number in range(3_000)]
    yield _schema("3,000 alternatives", {"anyOf": any_of})
    yield _schema("900 alternatives", {"anyOf": any_of[:900]}, True)
    yield _schema("an enum of 20,000", {"enum": [str(n) for n in range(20_000)]})
    yield _schema("a schema of 1 MB", {"type": "string", "title": "x" * 1_000_000})
    yield _schema("a text of 30,000", {"const": "x" * 30_000})
    yield _schema(
        "20,000 required", {"type": "object", "required": [f"{n}" for n in range(20_000)]}
    )
    yield _schema("3,000 properties", {"properties": {f"p{n}": {} for n in range(3_000)}})
    yield _schema("a multiple", {"type": "integer", "multipleOf": 1_000_003})
    yield _schema("a reference to itself", {"$ref": "#/$defs/none"})
    deep: dict[str, Any] = {"type": "null"}
    for _ in range(300):
        deep = {"type": "array", "items": deep}
    nested = {"type": "json_schema", "json_schema": {"name": "deep", "schema": deep}}
    yield _chat("300 arrays", None, response_format=nested)
    quantified = "^((((a{1,100}){1,100}){1,100}){1,100})$"
    yield _schema("nested quantifiers", {"type": "string", "pattern": quantified}, True)
    yield _schema("a blow-up", {"type": "string", "pattern": "^.*a.{200}$"}, True)
    yield _schema("10^9 items", {"type": "array", "items": {}, "maxItems": 10**9}, True)
    halves: dict[str, Any] = {
        f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)
    }
    halves["a60"] = {"type": "null"}
    yield _schema("2^60 alternatives", {"$ref": "#/$defs/a0", "$defs": halves}, True)


def _object_of(names: int) -> bytes:
    return json.dumps({f"k{number}": 0 for number in range(names)}).encode()


def send(client: httpx.Client, hostile: Hostile) -> dict[str, Any]:
    """Send a body; return the response, or that the connection was closed."""
    began = time.monotonic()
    answer = client.post(
        hostile.path, content=hostile.content, headers={"content-type": "application/json"}
    )
    return {
        "name": hostile.name,
        "status": answer.status_code,
        "error": answer.json().get("error"),
        "seconds": round(time.monotonic() - began, 3),
    }


def main() -> None:
    url, callers = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 4
    everything = bodies()
    for each in everything:
        _ = each.content
    print("ready", flush=True)
    sys.stdin.readline()  # until the caller is ready
    with (
        httpx.Client(base_url=url, timeout=120, trust_env=False) as client,
        ThreadPoolExecutor(callers) as pool,
    ):
        for outcome in pool.map(lambda each: send(client, each), everything):
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
