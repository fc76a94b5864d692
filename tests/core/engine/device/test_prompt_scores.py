"""How likely a prompt was, and how little of it is read twice."""

import pytest

from core.engine.device.runner import BLOCK_TOKENS
from tests.core.engine.asking import PROMPTS, Asker, logprobs_after


@pytest.mark.parametrize("max_step_tokens", [48, 16])
def test_the_prompt_is_scored_as_by_a_plain_forward_pass(
    make_engine, reader, base, tuned, adapters, tokenizer, max_step_tokens
):
    asker = Asker(make_engine(max_step_tokens=max_step_tokens), reader, base)
    prompt = PROMPTS[1]
    asker.ask(prompt, adapters[0])  # the cache knows it now, and it is read all the same
    answer = asker.ask(prompt, adapters[0], score_prompt=True, top_logprobs=2, max_tokens=0, n=2)
    scored_prompt = answer.items[0].prompt
    assert [token.logprob is None for token in scored_prompt] == [True] + [False] * (
        len(prompt) - 1
    )
    assert b"".join(bytes(token.bytes) for token in scored_prompt).decode() == tokenizer.decode(
        prompt
    )
    expected_TV = logprobs_after(tuned, prompt[:1], list(prompt[1:]))
    for token, expected_V, scored in zip(prompt[1:], expected_TV, scored_prompt[1:], strict=True):
        assert scored.logprob == pytest.approx(expected_V[token].item(), abs=1e-4)
        best = [each.logprob for each in scored.top]
        assert best == pytest.approx(expected_V.topk(2).values.tolist(), abs=1e-4)
    assert answer.text() == ""
    assert {each.completion_tokens for each in answer.finished().values()} == {0}
    assert answer.finished().keys() == {0, 1}


def test_requests_of_one_prompt_read_it_once(asker):
    prompt = tuple(range(30, 80))
    asker.ask(prompt)
    read = asker.engine.metrics.read_tokens._value.get()
    asker.ask(prompt, max_tokens=1)
    known = 50 // BLOCK_TOKENS * BLOCK_TOKENS
    assert 0 < known == asker.engine.scheduler.prefix_cache_hits
    assert asker.engine.metrics.read_tokens._value.get() - read == 50 - known
