"""What an unmodified client can ask of an answer, from the real engine."""

import json
from typing import Any

import jsonschema
import openai
import pytest

from tests.end_to_end.service import Service

MODEL = "tunesmith/tiny"
MESSAGES: Any = [{"role": "user", "content": "Tell me about the module `json`."}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 20},
        "score": {"type": "integer", "minimum": 0, "maximum": 9},
        "kind": {"enum": ["module", "function"]},
    },
    "required": ["title", "score", "kind"],
    "additionalProperties": False,
}


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    return service.client


def test_an_answer_follows_a_json_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        seed=1,
        max_tokens=200,
        n=3,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "fact", "schema": SCHEMA, "strict": True},
        },
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)


def test_a_schema_that_is_none_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "fact", "schema": {"type": "nonsense"}},
            },
        )
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "response_format")


def test_bias_and_penalty_change_what_is_said(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> str:
        answer = client.completions.create(
            model=MODEL, prompt="import", temperature=0, max_tokens=12, logprobs=0, **options
        )
        return answer.choices[0].text

    plain = ask()
    assert ask() == plain
    assert ask(presence_penalty=2.0, frequency_penalty=2.0) != plain
    only = ask(logit_bias={"300": 100})
    assert len(set(only.split())) <= 1 and only != plain


def test_a_text_is_scored_and_code_is_likelier_than_noise(client: openai.OpenAI) -> None:
    def score(text: str) -> float:
        answer = client.completions.create(
            model=MODEL, prompt=text, max_tokens=0, echo=True, logprobs=2
        )
        table = answer.choices[0].logprobs
        assert table is not None and table.tokens and table.token_logprobs and table.top_logprobs
        assert answer.choices[0].text == "".join(table.tokens) == text
        assert table.token_logprobs[0] is None
        for token, logprob, top in zip(
            table.tokens[1:], table.token_logprobs[1:], table.top_logprobs[1:], strict=True
        ):
            assert top[token] == pytest.approx(logprob)
            assert max(top.values()) >= logprob
        return sum(table.token_logprobs[1:])

    code = "def add(a, b):\n    return a + b\n"
    assert score(code) > score("".join(reversed(code)))
