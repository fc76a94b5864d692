"""The fake answers as a running vLLM did, and what the bridge sends is what vLLM takes.

`recorded.json` was recorded from vLLM 0.32.0 on a CPU; record.py did it.
"""

import json
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.engine.policy.request import ModelKey, Request
from core.spec.generation import SamplingSpec
from tests.api.live import serve
from tests.worker.serving import BASE
from tests.worker.vllm.contract import MAX_LOGPROBS, VOCABULARY, CompletionRequest
from tests.worker.vllm.fake import FakeVllm
from tests.worker.vllm.record import ask, write_adapter
from worker.vllm.completion import completion_body

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("adapters")
    adapter, large = write_adapter(folder / "a"), write_adapter(folder / "large", rank=32)
    with serve(FakeVllm(BASE.source).app) as url, httpx.Client(base_url=url) as client:
        return {answer["name"]: answer for answer in ask(client, adapter, large)}


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["name"])
def test_the_fake_answers_as_vllm_did(answers, recorded):
    assert answers[recorded["name"]] == recorded


sampling_specs = st.builds(
    SamplingSpec,
    max_tokens=st.none() | st.integers(0, 100),
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    n=st.integers(1, 128),
    top_logprobs=st.none() | st.integers(0, MAX_LOGPROBS),
    logit_bias=st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100), max_size=3),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    top_k=st.integers(0, 2**31 - 1),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.01, 100),
    min_tokens=st.integers(0, 200),
    stop_token_ids=st.lists(st.integers(0, VOCABULARY - 1), max_size=3).map(tuple),
    score_prompt=st.booleans(),
) | st.builds(
    SamplingSpec,
    seed=st.integers(0, 5),
    top_logprobs=st.none() | st.integers(0, 3),
    given_answer=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4).map(tuple),
)


@settings(max_examples=300, deadline=None)
@given(sampling_specs, st.sampled_from([frozenset(), frozenset({0, 2})]))
def test_whatever_is_asked_is_asked_of_vllm_as_it_can_be(sampling, ends):
    limit = 10 if sampling.max_tokens is None else sampling.max_tokens
    request = Request("r", ModelKey(BASE), (5, 6), sampling, limit, ends)
    body = json.loads(json.dumps(completion_body(request, "base")))
    try:
        CompletionRequest.model_validate(body).check_late()
    except ValidationError as error:
        raise AssertionError(body) from error
