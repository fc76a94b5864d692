"""vLLM's sampling parameters over HTTP: what reaches the engine, and what is refused."""

import json
from typing import Any

import httpx
import pytest

from core.spec.generation import (
    ChoiceOutput,
    GenerationRequest,
    GrammarOutput,
    JsonObjectOutput,
    RegexOutput,
    SchemaOutput,
)
from tests.api.scripted_engine import ScriptedEngine
from tests.contract.contract import check_schema

ROUTES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "The question is"}]},
    "/v1/completions": {"prompt": "The question is"},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CHAT, COMPLETIONS = ROUTES


@pytest.fixture(params=ROUTES)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return client.post(path, json={"model": "tunesmith/tiny", **ROUTES[path], **fields})


def asked(client: httpx.Client, engine: ScriptedEngine, path: str, **fields: Any) -> Any:
    """Return the request that the engine gets."""
    answer = post(client, path, **fields)
    assert answer.status_code == 200, answer.text
    return engine.requests[-1]


def error_of(client: httpx.Client, path: str, **fields: Any) -> dict[str, Any]:
    answer = post(client, path, **fields)
    assert answer.status_code == 400, answer.text
    check_schema("ErrorResponse", answer.json())
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_parameters_reach_the_engine(
    client: httpx.Client, engine: ScriptedEngine, path: str
) -> None:
    sampling = asked(
        client,
        engine,
        path,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        min_tokens=3,
        stop_token_ids=[7, 9],
        include_stop_str_in_output=True,
    ).sampling
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (40, 0.05, 1.1)
    assert (sampling.min_tokens, sampling.stop_token_ids) == (3, (7, 9))
    assert sampling.include_stop


NEUTRAL = {
    "top_k": -1,
    "min_p": 0,
    "repetition_penalty": 1,
    "min_tokens": 0,
    "stop_token_ids": [],
    "include_stop_str_in_output": False,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "use_beam_search": False,
    "best_of": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "prompt_logprobs": None,
    "truncate_prompt_tokens": None,
    "bad_words": [],
    "allowed_token_ids": None,
    "return_token_ids": False,
    "return_tokens_as_token_ids": False,
    "guided_json": None,
    "guided_decoding_backend": "outlines",
    "structured_outputs": {},
    "priority": 3,
    "continue_final_message": False,
    "add_generation_prompt": True,
}


def test_neutral_values_change_nothing(
    client: httpx.Client, engine: ScriptedEngine, path: str
) -> None:
    def of(**fields: Any) -> GenerationRequest:
        request: GenerationRequest = asked(client, engine, path, seed=1, **fields)
        return request.model_copy(update={"id": ""})

    plain = of()
    assert of(**NEUTRAL) == plain
    assert of(**dict.fromkeys(NEUTRAL)) == plain
    for name, value in NEUTRAL.items():
        assert of(**{name: value}) == plain, name
    assert of(top_k=0) == plain


CONSTRAINTS: list[tuple[dict[str, Any], Any]] = [
    ({"guided_json": SCHEMA}, SchemaOutput(json_schema=SCHEMA, param="guided_json")),
    ({"guided_json": json.dumps(SCHEMA)}, SchemaOutput(json_schema=SCHEMA, param="guided_json")),
    ({"guided_regex": "a+"}, RegexOutput(regex="a+", param="guided_regex")),
    ({"guided_choice": ["a", "b"]}, ChoiceOutput(choices=("a", "b"), param="guided_choice")),
    (
        {"guided_grammar": 'start: "a"'},
        GrammarOutput(grammar='start: "a"', param="guided_grammar"),
    ),
    (
        {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}},
        SchemaOutput(json_schema=SCHEMA, param="structured_outputs.json"),
    ),
    (
        {"structured_outputs": {"regex": "a+"}},
        RegexOutput(regex="a+", param="structured_outputs.regex"),
    ),
    (
        {"structured_outputs": {"choice": ["a"]}},
        ChoiceOutput(choices=("a",), param="structured_outputs.choice"),
    ),
    (
        {"structured_outputs": {"grammar": 'root ::= "a"'}},
        GrammarOutput(grammar='root ::= "a"', param="structured_outputs.grammar"),
    ),
    (
        {"structured_outputs": {"json_object": True}},
        JsonObjectOutput(param="structured_outputs.json_object"),
    ),
    ({"structured_outputs": {"json_object": False}}, None),
]


@pytest.mark.parametrize(("fields", "expected"), CONSTRAINTS)
def test_constraints_have_two_forms(
    client: httpx.Client, engine: ScriptedEngine, path: str, fields: dict[str, Any], expected: Any
) -> None:
    assert asked(client, engine, path, **fields).sampling.structured_output == expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"top_k": "40"}, "top_k"),
    ({"top_k": True}, "top_k"),
    ({"min_p": 1.1}, "min_p"),
    ({"min_p": "0.1"}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"repetition_penalty": -1.0}, "repetition_penalty"),
    ({"repetition_penalty": 1e308}, "repetition_penalty"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"min_tokens": 20, "max_tokens": 10}, "min_tokens"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"stop_token_ids": ["</s>"]}, "stop_token_ids"),
    ({"stop_token_ids": list(range(129))}, "stop_token_ids"),
    ({"skip_special_tokens": False}, "skip_special_tokens"),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"best_of": 3}, "best_of"),
    ({"length_penalty": 0.8}, "length_penalty"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"bad_words": ["x"]}, "bad_words"),
    ({"return_token_ids": True}, "return_token_ids"),
    ({"guided_regex": ""}, "guided_regex"),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_choice": ["a", ""]}, "guided_choice"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": "[" * 2_000}, "guided_json"),
    ({"guided_json": "[1]"}, "guided_json"),
    ({"guided_grammar": "x" * 70_000}, "guided_grammar"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    ({"guided_regex": "a", "structured_outputs": {"choice": ["a"]}}, "structured_outputs.choice"),
    ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"regex": "a", "json_object": True}}, "structured_outputs.json_object"),
    ({"structured_outputs": {"unknown": 1}}, "structured_outputs.unknown"),
    ({"guided_regex": "a+", "ignore_eos": True}, "ignore_eos"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_cannot_be_served_is_refused_by_name(
    client: httpx.Client, path: str, fields: dict[str, Any], param: str
) -> None:
    named = error_of(client, path, **fields)["param"]
    assert named is not None
    assert named.startswith(param), named


def test_a_constraint_excludes_other_forms_of_output(client: httpx.Client) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    for other in (
        {"response_format": {"type": "json_object"}},
        {"tools": [tool], "tool_choice": "required"},
    ):
        error = error_of(client, CHAT, guided_regex="a+", **other)
        assert (error["param"], error["code"]) == ("guided_regex", "contradictory_parameters")


def test_a_constraint_may_be_beside_offered_tools(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    output = asked(client, engine, CHAT, guided_regex="a+", tools=[tool]).sampling.structured_output
    assert output.type == "regex"


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        ({}, "generation_prompt"),
        ({"add_generation_prompt": True}, "generation_prompt"),
        ({"add_generation_prompt": False}, "nothing"),
        ({"continue_final_message": True}, "final_message"),
        ({"continue_final_message": True, "add_generation_prompt": False}, "final_message"),
    ],
)
def test_a_chat_says_how_its_prompt_ends(
    client: httpx.Client, engine: ScriptedEngine, fields: dict[str, Any], ending: str
) -> None:
    assert asked(client, engine, CHAT, **fields).prompt.ending == ending


def test_special_tokens_have_the_defaults_of_vllm(
    client: httpx.Client, engine: ScriptedEngine
) -> None:
    for path, default in ((CHAT, False), (COMPLETIONS, True)):
        assert asked(client, engine, path).prompt.add_special_tokens is default
        for value in (True, False):
            prompt = asked(client, engine, path, add_special_tokens=value).prompt
            assert prompt.add_special_tokens is value


def chunks_of(client: httpx.Client, path: str, **fields: Any) -> list[dict[str, Any]]:
    answer = post(client, path, stream=True, **fields)
    *events, last = answer.text.strip().split("\n\n")
    assert last == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_every_chunk_has_the_usage_so_far(client: httpx.Client, path: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = chunks_of(client, path, stream_options=options, n=2)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 8
    assert set(range(1, 9)) <= set(counts)
    assert all(chunk["usage"]["prompt_tokens"] == 3 for chunk in chunks)
    assert chunks[-1]["choices"] == []
    plain = chunks_of(client, path, stream_options={"include_usage": True}, n=2)
    assert plain[-1]["usage"] == chunks[-1]["usage"]
    assert all(chunk["usage"] is None for chunk in plain[:-1])


def test_usage_so_far_needs_usage(client: httpx.Client, path: str) -> None:
    chunks = chunks_of(client, path, stream_options={"continuous_usage_stats": True})
    assert all("usage" not in chunk for chunk in chunks)
