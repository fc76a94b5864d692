"""Penalties are those of transformers; forbidden tokens are never chosen."""

import gc

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from core.engine.device import penalties
from core.engine.device.penalties import apply_grammars, apply_penalties
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.spec.base_model import BaseModelSpec
from core.spec.generation import SamplingSpec

VOCABULARY = 40
BASE = BaseModelSpec(id="x", source="/x")
tokens = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12)


def make_sequence(prompt=(1,), written=(), task="generation", ends=(), **sampling) -> SequenceState:
    spec = SamplingSpec(**{"seed": 7} | sampling)
    request = Request("r", ModelKey(BASE, task=task), tuple(prompt), spec, 100, frozenset(ends))
    return SequenceState(request, 0, tokens=list(written))


def noise(rows: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(tokens, tokens, st.sampled_from([0.01, 0.5, 1.0, 1.3, 100.0])),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 10**6),
)
def test_repeated_tokens_are_penalized_as_by_transformers(rows, seed):
    logits_BV = noise(len(rows), seed)
    sequences = [
        make_sequence(prompt, written, repetition_penalty=penalty)
        for prompt, written, penalty in rows
    ]
    found_BV = apply_penalties(logits_BV, sequences)
    for row, (prompt, written, penalty) in enumerate(rows):
        ids_1T = torch.tensor([[*prompt, *written]])
        expected_1V = RepetitionPenaltyLogitsProcessor(penalty)(ids_1T, logits_BV[row : row + 1])
        assert torch.equal(found_BV[row : row + 1], expected_1V)


def test_tokens_count_as_they_are_written():
    sequence = make_sequence(prompt=(1, 2), repetition_penalty=2.0)
    logits_1V = torch.full((1, VOCABULARY), 4.0)
    for written in ([], [5], [5, 1], [5, 1, 9, 9]):
        sequence.tokens[:] = written
        found_V = apply_penalties(logits_1V, [sequence])[0]
        assert set((found_V == 2).nonzero()[:, 0].tolist()) == {1, 2, *written}
    assert bool((logits_1V == 4).all()), "the model's logits are unchanged"


def test_the_source_of_an_encoder_decoder_does_not_count():
    sequence = make_sequence((1, 2), [5], task="seq2seq", repetition_penalty=2.0)
    found_V = apply_penalties(torch.full((1, VOCABULARY), 4.0), [sequence])[0]
    assert (found_V == 2).nonzero()[:, 0].tolist() == [5]


def test_bias_comes_first_and_occurrences_last():
    """(1 + 3) / 2 - 0.5, in vLLM's order."""
    sequence = make_sequence(
        (1,), [2], logit_bias={2: 3.0}, repetition_penalty=2.0, presence_penalty=0.5
    )
    found_V = apply_penalties(torch.ones(1, VOCABULARY), [sequence])[0]
    assert found_V[[1, 2, 3]].tolist() == [0.5, 1.5, 1.0]


def test_a_large_penalty_on_half_precision_stays_finite():
    sequence = make_sequence((1,), repetition_penalty=0.01)
    logits_1V = torch.full((1, VOCABULARY), 1000.0, dtype=torch.float16)
    assert apply_penalties(logits_1V, [sequence])[0, 1] == 100_000


def test_ended_sequences_are_forgotten():
    sequence = make_sequence(repetition_penalty=2.0)
    apply_penalties(noise(1), [sequence])
    assert sequence in penalties._occurred_in
    before = len(penalties._occurred_in)
    del sequence
    gc.collect()
    assert len(penalties._occurred_in) < before


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.sets(st.integers(0, VOCABULARY - 1), min_size=1))
def test_ends_are_forbidden_as_by_transformers(least, written, ends):
    stop = tuple(sorted(ends))[:1]
    sequence = make_sequence((1,), [9] * written, ends=ends, min_tokens=least, stop_token_ids=stop)
    if len(ends) == VOCABULARY:
        return
    logits_1V = noise(1)
    processor = MinNewTokensLengthLogitsProcessor(1, least, sorted(ends))
    ids_1T = torch.tensor([[1] + [9] * written])
    expected_1V = processor(ids_1T, logits_1V.clone())
    assert torch.equal(apply_grammars(logits_1V, [sequence]), expected_1V)


class Fixed:
    """A grammar that always allows the same tokens."""

    error = ""

    def __init__(self, *allowed: int) -> None:
        self._allowed = allowed

    def allowed(self):
        allowed_V = np.zeros(VOCABULARY, dtype=bool)
        allowed_V[list(self._allowed)] = True
        return allowed_V


def allowed_after(matcher: Fixed, **sampling) -> list[int]:
    sequence = make_sequence(ends=(0,), **sampling)
    sequence.matcher = matcher
    found_V = apply_grammars(noise(1), [sequence])[0]
    return found_V.isfinite().nonzero()[:, 0].tolist()


def test_a_grammar_goes_on_until_it_has_enough_tokens():
    assert allowed_after(Fixed(0, 5, 6)) == [0, 5, 6]
    assert allowed_after(Fixed(0, 5, 6), min_tokens=3) == [5, 6]
    assert allowed_after(Fixed(0, 5, 6), min_tokens=3, stop_token_ids=(5,)) == [6]


def test_a_complete_output_ends_before_it_has_enough_tokens():
    assert allowed_after(Fixed(0), min_tokens=3) == [0]


def test_a_vocabulary_of_stop_tokens_leaves_something_to_draw():
    sequence = make_sequence(min_tokens=3, stop_token_ids=tuple(range(VOCABULARY)))
    assert bool(apply_grammars(noise(1), [sequence]).isfinite().any())


def test_a_batch_without_parameters_is_not_copied():
    logits_BV = noise(2)
    sequences = [make_sequence(), make_sequence(temperature=0.5, top_p=0.9)]
    assert apply_penalties(logits_BV, sequences) is logits_BV
    assert apply_grammars(logits_BV, sequences) is logits_BV
