"""An answer can be given to the engine, which then says how likely each of its tokens was."""

import pytest
from pydantic import ValidationError

from core.errors import InvalidRequest
from core.spec.generation import GenerationStarted, JsonObjectOutput, SamplingSpec
from tests.core.engine.asking import END, PROMPTS, assert_greedy, logprobs_after

ANSWER = (41, END, 300, 7, END)
"""With the end of text in the middle: in an answer that is given it ends nothing."""


def given(**changes):
    return {"given_answer": ANSWER, "top_logprobs": 0, "temperature": 1.0, **changes}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_token_is_scored_as_one_forward_pass_does(asker, adapters, tuned, prompt):
    answer = asker.ask(prompt, adapters[0], **given(max_tokens=1))
    expected_TV = logprobs_after(tuned, prompt, list(ANSWER))
    expected = [row_V[token].item() for row_V, token in zip(expected_TV, ANSWER, strict=True)]
    assert [token.logprob for token in answer.tokens()] == pytest.approx(expected, abs=1e-4)
    assert answer.finished()[0].completion_tokens == len(ANSWER)


def test_prompt_is_told_as_the_model_reads_it(asker):
    started = asker.ask(PROMPTS[0], **given()).items[0]
    assert isinstance(started, GenerationStarted)
    assert started.prompt_ids == PROMPTS[0]
    assert asker.ask(PROMPTS[0]).items[0].prompt_ids == ()


def test_neighbors_in_the_batch_choose_for_themselves(asker, adapters, tuned, tokenizer):
    free = [asker.submit(prompt, adapters[0], top_logprobs=0) for prompt in PROMPTS[:2]]
    asker.submit(PROMPTS[2], adapters[0], **given())
    asker.finish()
    for answer, prompt in zip(free, PROMPTS, strict=False):
        assert_greedy(answer, tuned, prompt, tokenizer)


def test_prompt_and_answer_are_scored_together(asker, reference):
    prompt = PROMPTS[1]
    answer = asker.ask(prompt, **given(score_prompt=True))
    expected_TV = logprobs_after(reference, prompt[:1], list(prompt[1:]))
    for token, scored, row_V in zip(
        prompt[1:], answer.items[0].prompt[1:], expected_TV, strict=True
    ):
        assert scored.logprob == pytest.approx(row_V[token].item(), abs=1e-4)
    assert len(answer.tokens()) == len(ANSWER)


def test_token_outside_the_vocabulary_is_refused(asker):
    with pytest.raises(InvalidRequest, match="Token 99999 at index 1") as caught:
        asker.read(PROMPTS[0], given_answer=(1, 99999))
    assert (caught.value.param, caught.value.code) == ("given_answer", "invalid_token")


def test_answer_that_does_not_fit_the_context_is_refused(asker):
    with pytest.raises(InvalidRequest) as caught:
        asker.read(tuple([40] * 100), given_answer=(1,) * 100, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "choice",
    [{"n": 2}, {"structured_output": JsonObjectOutput()}, {"stop": ("a",)}],
    ids=["n", "output", "stop"],
)
def test_nothing_is_left_to_choose(choice):
    with pytest.raises(ValidationError, match="given_answer excludes"):
        SamplingSpec(seed=0, given_answer=(1,), **choice)
