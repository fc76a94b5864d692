"""OpenAI's routes for graders, with the stock client, on an engine that follows a script."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from core.grading.result import UNSET_ERRORS
from core.sandbox.availability import availability
from tests.api import as_worker
from tests.api.live import Api, running_api
from tests.api.scripted_engine import ScriptedEngine, vector_of

RUN = "/v1/fine_tuning/alpha/graders/run"
VALIDATE = "/v1/fine_tuning/alpha/graders/validate"
MODEL = "tunesmith/tiny"

STRING: dict[str, Any] = {
    "type": "string_check",
    "name": "city",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.city }}",
    "operation": "eq",
}
SIMILAR: dict[str, Any] = {
    "type": "text_similarity",
    "name": "similar",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.city }}",
    "evaluation_metric": "fuzzy_match",
    "pass_threshold": 0.8,
}
PYTHON = {
    "type": "python",
    "name": "length",
    "source": "def grade(sample, item):\n    return len(sample['output_text']) / item['length']\n",
    "image_tag": "2025-05-08",
}

needs_sandbox = pytest.mark.skipif(
    availability().kind is None, reason="this machine allows no sandbox"
)


def judge(said: object, **more: Any) -> dict[str, Any]:
    """A score model whose engine says this."""
    return {
        "type": "score_model",
        "name": "judge",
        "model": MODEL,
        "input": [{"role": "user", "content": f"say exactly {json.dumps(said)}"}],
        **more,
    }


@pytest.fixture
def stock(api: Api) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0)


def run(client: httpx.Client, grader: dict[str, Any], text: str = "Paris", **item: Any) -> Any:
    body = {"grader": grader, "model_sample": text, "item": item or {"city": "Paris"}}
    answer = client.post(RUN, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def flags(result: dict[str, Any]) -> set[str]:
    return {name for name, value in result["metadata"]["errors"].items() if value is True}


def test_stock_client_runs_and_validates(stock: openai.OpenAI) -> None:
    graders: Any = stock.fine_tuning.alpha.graders
    assert graders.validate(grader=STRING).grader.to_dict() == STRING
    result = graders.run(grader=STRING, item={"city": "Paris"}, model_sample="Paris")
    assert (result.reward, result.metadata.name, result.metadata.type) == (
        1.0,
        "city",
        "string_check",
    )
    assert result.metadata.errors.to_dict() == UNSET_ERRORS
    assert result.metadata.token_usage is None and result.metadata.sampled_model_name is None
    assert (result.sub_rewards, result.model_grader_token_usage_per_model) == ({}, {})
    assert graders.run(grader=STRING, item={"city": "Rome"}, model_sample="Paris").reward == 0.0
    plain = STRING | {"reference": "Paris"}
    assert graders.run(grader=plain, model_sample="Paris").reward == 1.0


def test_score_of_a_model_has_its_usage(
    client: httpx.Client, engine: ScriptedEngine, api: Api
) -> None:
    grader = judge(
        {"steps": [], "result": 0.75},
        range=[0, 1],
        pass_threshold=0.5,
        sampling_params={
            "seed": 42,
            "temperature": 0.5,
            "top_p": 0.9,
            "max_completions_tokens": 50,
        },
    )
    result = run(client, grader)
    metadata = result["metadata"]
    assert (result["reward"], metadata["passed"], metadata["sampled_model_name"]) == (
        0.75,
        True,
        MODEL,
    )
    assert metadata["token_usage"] == result["model_grader_token_usage_per_model"][MODEL] > 0
    assert metadata["execution_time"] > 0
    [asked] = engine.requests
    sampling = asked.sampling
    assert (sampling.seed, sampling.temperature, sampling.top_p) == (42, 0.5, 0.9)
    assert sampling.max_tokens == 50
    assert sampling.structured_output is not None
    assert not asked.background


def test_model_that_says_something_else_gives_a_flag(client: httpx.Client) -> None:
    result = run(client, judge("no json here"))
    assert (result["reward"], flags(result)) == (0.0, {"model_grader_parse_error"})
    assert result["metadata"]["token_usage"] > 0
    out_of_memory = judge("x", input=[{"role": "user", "content": "fail"}])
    too_long = judge("x", input=[{"role": "user", "content": "word " * 200}])
    result = run(client, too_long)
    assert flags(result) == {"model_grader_server_error"}
    assert "too long" in result["metadata"]["errors"]["model_grader_server_error_details"]
    result = run(client, out_of_memory)
    assert flags(result) == {"model_grader_server_error"}
    assert "out of memory" in result["metadata"]["errors"]["details"]


def test_label_of_a_tuned_model(
    client: httpx.Client, engine: ScriptedEngine, api: Api, create_job: Callable[..., str]
) -> None:
    """The route takes label models, as OpenAI's guide does, whose API description lacks them."""
    create_job()
    tuned = as_worker.succeed(api, as_worker.start(api))
    grader = {
        "type": "label_model",
        "name": "labels",
        "model": tuned,
        "input": [{"role": "user", "content": 'say exactly {"result": "good"}'}],
        "labels": ["good", "bad"],
        "passing_labels": ["good"],
    }
    result = run(client, grader)
    assert (result["reward"], result["metadata"]["sampled_model_name"]) == (1.0, tuned)
    assert engine.requests[-1].adapter is not None
    assert run(client, grader | {"passing_labels": ["bad"]})["reward"] == 0.0


def test_several_graders_have_sub_rewards(client: httpx.Client) -> None:
    grader = {
        "type": "multi",
        "name": "both",
        "graders": {"exact": STRING, "near": SIMILAR, "model": judge({"result": 0.5})},
        "calculate_output": "0.5 * exact + 0.25 * near + 0.5 * model",
    }
    result = run(client, grader)
    assert result["sub_rewards"] == {"exact": 1.0, "near": 1.0, "model": 0.5}
    assert (result["reward"], result["metadata"]["passed"]) == (1.0, True)
    assert set(result["model_grader_token_usage_per_model"]) == {MODEL}
    assert client.post(VALIDATE, json={"grader": grader}).json()["grader"] == grader


@needs_sandbox
def test_python_runs_in_the_sandbox(client: httpx.Client) -> None:
    assert run(client, PYTHON, "Paris", length=10)["reward"] == 0.5
    result = run(client, PYTHON, "Paris", length=0)
    assert (result["reward"], flags(result)) == (0.0, {"python_grader_runtime_error"})
    details = result["metadata"]["errors"]["python_grader_runtime_error_details"]
    assert "ZeroDivisionError" in details
    truth = PYTHON | {"source": "def grade(sample, item):\n    return item['length'] == 3\n"}
    assert run(client, truth, length=3)["reward"] == 1.0
    words = PYTHON | {"source": "def grade(sample, item):\n    return 'high'\n"}
    assert flags(run(client, words, length=3)) == {"python_grader_runtime_error"}


@needs_sandbox
def test_python_example_of_openais_guide_runs(client: httpx.Client) -> None:
    """It has no name, and imports rapidfuzz."""
    source = (
        "from rapidfuzz import fuzz, utils\n\n"
        "def grade(sample, item) -> float:\n"
        "    texts = sample['output_text'], item['reference_answer']\n"
        "    return fuzz.WRatio(*texts, processor=utils.default_process) / 100.0\n"
    )
    example = {"type": "python", "source": source}
    validated = client.post(VALIDATE, json={"grader": example}).json()["grader"]
    assert validated == example | {"name": "python"}
    answer = "fuzzy wuzzy had no hair"
    result = run(client, example, "fuzzy wuzzy was a bear", reference_answer=answer)
    assert result["reward"] == pytest.approx(0.7556, abs=1e-4)
    assert result["metadata"]["name"] == "python"


def test_model_examples_of_openais_guide_run(client: httpx.Client, engine: ScriptedEngine) -> None:
    """With every field that they have, but the model and what it is asked."""
    score = {
        "type": "score_model",
        "name": "my_score_model",
        "input": [
            {"role": "system", "content": "You are an expert grader."},
            {"role": "user", "content": "{{ item.reference_answer }} {{ sample.output_text }}"},
            {"role": "user", "content": 'say exactly {"steps": [], "result": 0.5}'},
        ],
        "pass_threshold": 0.5,
        "model": MODEL,
        "range": [0, 1],
        "sampling_params": {
            "max_completions_tokens": 32768,
            "top_p": 1,
            "reasoning_effort": "medium",
        },
    }
    result = run(client, score, "0.9", reference_answer=1.0)
    assert (result["reward"], result["metadata"]["passed"]) == (0.5, True)
    prompt: Any = engine.requests[-1].prompt
    assert prompt.messages[1]["content"] == "1.0 0.9"
    assert prompt.template_kwargs == {"reasoning_effort": "medium"}
    label = {
        "type": "label_model",
        "name": "my_label_model",
        "input": [{"role": "user", "content": 'say exactly {"result": "bad"}'}],
        "passing_labels": ["good"],
        "labels": ["good", "bad"],
        "model": MODEL,
        "sampling_params": {
            "max_tokens": 32768,
            "top_p": 1,
            "seed": 42,
            "reasoning_effort": "medium",
        },
    }
    body = {"grader": label, "item": {}, "model_sample": "0.9"}
    assert client.post(VALIDATE, json={"grader": label}).status_code == 200
    assert client.post(RUN, json=body).json()["reward"] == 0.0
    assert engine.requests[-1].sampling.max_tokens == 32768


@needs_sandbox
def test_python_sees_the_sample_and_the_item(client: httpx.Client) -> None:
    source = (
        "def grade(sample, item):\n"
        "    assert sample['output_json'] == {'a': [1]}, sample\n"
        "    assert sample['choices'][0]['message']['content'] == sample['output_text']\n"
        "    assert sample['output_tools'] == []\n"
        "    return item['nested']['score']\n"
    )
    result = run(client, PYTHON | {"source": source}, '{"a": [1]}', nested={"score": 0.25})
    assert result["reward"] == 0.25, result


@pytest.mark.parametrize(
    ("grader", "flag"),
    [
        (STRING | {"reference": "{{item.missing}}"}, "invalid_variable_error"),
        (STRING | {"reference": "{{sample.output_json.city}}"}, "sample_parse_error"),
        (SIMILAR | {"evaluation_metric": "rouge_l", "input": "word " * 40_000}, "other_error"),
    ],
)
def test_grader_that_fails_is_no_error_of_the_request(
    client: httpx.Client, grader: dict[str, Any], flag: str
) -> None:
    result = run(client, grader)
    assert (result["reward"], flags(result)) == (0.0, {flag})
    assert result["metadata"]["errors"]["details"]
    assert result["metadata"]["passed"] is False


@pytest.mark.parametrize("route", [RUN, VALIDATE])
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"type": "string_chek"}, "grader.type"),
        ({"operation": "equals"}, "grader.operation"),
        ({"input": "{{ foo }}"}, "grader.input"),
        ({"refrence": "x"}, "grader.refrence"),
        ({"input": 3}, "grader.input"),
        (judge("x", model="nobody"), "grader.model"),
        (judge("x", range=[2, 1]), "grader.range"),
        (judge("x", range=[1, 2, 3]), "grader.range"),
        (judge("x", sampling_params={"top_p": 2}), "grader.sampling_params.top_p"),
        (judge("x", input=[]), "grader.input"),
        (PYTHON | {"source": "def grade(sample):\n    return 1"}, "grader.source"),
        (
            {"type": "multi", "graders": {"a": STRING}, "calculate_output": "b"},
            "grader.calculate_output",
        ),
        (
            {
                "type": "multi",
                "graders": {"a": {"type": "multi", "graders": {}, "calculate_output": "1"}},
                "calculate_output": "a",
            },
            "grader.graders.a.type",
        ),
        ({"type": "multi", "graders": {}, "calculate_output": "1"}, "grader.graders"),
        ({"grader": None}, "grader"),
    ],
)
def test_malformed_grader_is_refused_with_its_field(
    client: httpx.Client, engine: ScriptedEngine, route: str, change: dict[str, Any], param: str
) -> None:
    grader = change if len(change) > 1 else STRING | change
    body: dict[str, Any] = {"grader": None if "grader" in change else grader}
    if route == RUN:
        body |= {"model_sample": "x"}
    answer = client.post(route, json=body)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param
    assert engine.requests == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model_sample": None}, "model_sample"),
        ({"model_sample": "\ud800"}, "model_sample"),
        ({"item": [1]}, "item"),
        ({"item": {"x": ["\ud800"]}}, "item"),
        ({"item": {"x": float("nan")}}, "item.x"),
        ({"items": {}}, "items"),
        ({"grader": STRING | {"name": "\ud800"}}, "grader"),
    ],
)
def test_malformed_request_is_refused(
    client: httpx.Client, change: dict[str, Any], param: str
) -> None:
    body = {"grader": STRING, "model_sample": "x"} | change
    answer = client.post(
        RUN, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_cosine_needs_a_base_that_embeds(client: httpx.Client) -> None:
    """The only present base of this service, a decoder, embeds nothing."""
    cosine = SIMILAR | {"evaluation_metric": "cosine"}
    for route, body in ((RUN, {"model_sample": "x"}), (VALIDATE, {})):
        error = client.post(route, json={"grader": cosine} | body).json()["error"]
        assert (error["code"], error["param"]) == ("no_embedder", "grader.evaluation_metric")


def test_cosine_takes_the_first_base_that_embeds(
    engine: ScriptedEngine, tmp_path: Path, sqlite_url: str
) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(f'[[bases]]\nid = "encoder"\nsource = "{folder}"\n')
    ours, theirs = vector_of("Paris"), vector_of("New York")
    product = sum(a * b for a, b in zip(ours, theirs, strict=True))
    lengths = (sum(a * a for a in ours) * sum(b * b for b in theirs)) ** 0.5
    with (
        running_api(tmp_path, sqlite_url, engine.url, catalog_file=catalog) as api,
        httpx.Client(base_url=api.url) as client,
    ):
        result = run(client, SIMILAR | {"evaluation_metric": "cosine"}, "Paris", city="New York")
    assert result["reward"] == pytest.approx(product / lengths, abs=1e-6)
    assert engine.embedded[-1].base.id == "encoder"
    assert engine.embedded[-1].texts == ("Paris", "New York")


def test_outage_is_told_as_one(client: httpx.Client, engine: ScriptedEngine) -> None:
    engine.mood = "full"
    answer = client.post(RUN, json={"grader": judge("x"), "model_sample": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
