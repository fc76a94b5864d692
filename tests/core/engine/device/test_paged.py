"""Steps on a paged cache compute what each sequence computes alone, in every family."""

import copy

import pytest
import torch
from transformers import PreTrainedModel

from core.engine.device.causal_model import CausalModel
from core.engine.policy.blocks import BlockPool
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits
from core.models import paged_attention
from core.models.block_cache import BlockCache
from core.spec.base_model import BaseModelSpec
from core.spec.generation import SamplingSpec
from tests.core.tiny import DECODERS, tiny_model

WINDOWS: dict[str, dict[str, object]] = {
    "mistral": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "gemma2": {"sliding_window": 6},
    "gemma3_text": {"sliding_window": 6},
}
"""Shorter than the prompts, where the family has windows."""

PROMPTS = [(7,), tuple(range(10, 21)), (3, 1, 4, 1, 5), tuple(range(30, 60))]
MODEL = ModelKey(BaseModelSpec(id="random", source="/nowhere"))
BLOCKS, BLOCK_TOKENS = 40, 4
CPU = torch.device("cpu")


class Bench:
    """A model with its cache and a scheduler; each step is held against the model alone."""

    def __init__(self, model: PreTrainedModel, blocks: int = BLOCKS, **limits: int) -> None:
        defaults = {"max_sequences": 8, "max_waiting": 99, "max_step_tokens": 16}
        bounds = Limits(**defaults | limits, max_bases=1, max_adapters=1)
        self.reference = copy.deepcopy(model)
        self.scheduler = Scheduler(bounds, lambda base: BlockPool(blocks, BLOCK_TOKENS))
        cache = BlockCache(model.config, blocks, BLOCK_TOKENS, torch.float32, CPU)
        self.resident = CausalModel(model, cache, no_adapters, max_adapters=1)

    def add(self, prompts, n: int = 1) -> list[SequenceState]:
        sampling = SamplingSpec(seed=0, n=n)
        return [
            sequence
            for prompt in prompts
            for sequence in self.scheduler.add(
                Request("r", MODEL, prompt, sampling, 100, frozenset())
            )
        ]

    def step(self, steps: int = 1) -> None:
        for _ in range(steps):
            step = self.scheduler.schedule()
            written = self.resident.run(step.chunks)
            self.scheduler.advance(step)
            for sequence, logits_V in zip(written.sequences, written.logits_SV, strict=True):
                expected_V = self.alone(sequence)
                torch.testing.assert_close(logits_V, expected_V, atol=1e-4, rtol=1e-4)
                # choices go apart
                sequence.write(int(logits_V.topk(3).indices[sequence.index]))

    @torch.inference_mode()
    def alone(self, sequence: SequenceState) -> torch.Tensor:
        """Return the logits (V) after all positions of a sequence, without cache or batch."""
        return self.reference(torch.tensor([sequence.all_tokens]), use_cache=False).logits[0, -1]


def no_adapters(sha256: str):
    raise AssertionError("no adapter was asked for")


@pytest.fixture(params=DECODERS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param, **WINDOWS.get(request.param, {}))


@pytest.fixture(params=["where they lie", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to read keys and values: that of a CPU, and that of all other devices."""
    if request.param == "copied":
        copying = paged_attention._attend_to_copies
        monkeypatch.setattr(paged_attention, "_attend_by_gathering", copying)


@pytest.mark.usefixtures("way")
def test_sequences_of_all_lengths_compute_what_each_computes_alone(model):
    bench = Bench(model)
    sequences = bench.add(PROMPTS)
    bench.step(14)
    assert all(len(sequence.tokens) > 5 for sequence in sequences)


@pytest.mark.usefixtures("way")
def test_sequences_join_and_leave_at_any_step(model):
    bench = Bench(model)
    first = bench.add(PROMPTS[:2])
    bench.step(3)
    second = bench.add(PROMPTS[2:])
    bench.step(3)
    bench.scheduler.remove(first[0])
    bench.step(2)
    bench.scheduler.remove(second[1])
    bench.add(PROMPTS[:1])
    bench.step(5)


def test_prompts_of_equal_length_are_read_side_by_side(model, monkeypatch):
    read: list[int] = []

    def attend_run(query_HTD, key_KJD, value_KJD, sequences, rule):
        read.append(sequences)
        return attend(query_HTD, key_KJD, value_KJD, sequences, rule)

    attend = paged_attention._attend_run
    monkeypatch.setattr(paged_attention, "_attend_run", attend_run)
    bench = Bench(model, max_step_tokens=64)
    bench.add([PROMPTS[1], PROMPTS[1][::-1], (*PROMPTS[1][1:], 5), PROMPTS[2]])
    bench.step(3)
    assert sorted(set(read)) == [1, 3]


@pytest.mark.usefixtures("way")
def test_what_another_sequence_left_behind_disturbs_nobody(model):
    """Not even what is no number: positions behind the end of a sequence may hold anything."""
    bench = Bench(model)
    for states in (*bench.resident._cache.keys, *bench.resident._cache.values):
        states.fill_(float("nan"))
    bench.add(PROMPTS)
    bench.step(8)


def test_a_known_beginning_is_as_good_as_one_that_was_read(model):
    bench = Bench(model)
    [sequence] = bench.add(PROMPTS[3:])
    bench.step(4)
    bench.scheduler.remove(sequence)
    again, other = bench.add([PROMPTS[3], (*PROMPTS[3][:9], 1, 2)])
    bench.step()
    assert again.computed - 28 == 2, "seven full blocks were known"
    bench.step(3)
    assert len(other.tokens) == 4


def test_choices_share_the_blocks_of_their_prompt(model):
    bench = Bench(model)
    choices = bench.add(PROMPTS[1:2], n=3)
    bench.step(2)
    assert len({tuple(each.blocks[:2]) for each in choices}) == 1
    bench.step(6)
    assert len({tuple(each.tokens) for each in choices}) == 3


def test_who_steps_back_for_want_of_blocks_goes_on_as_if_nothing_had_been(model):
    bench = Bench(model, blocks=14)
    sequences = bench.add([PROMPTS[1], PROMPTS[2], PROMPTS[1][::-1]])
    bench.step(40)
    assert bench.scheduler.preemptions > 0
    assert all(sequence.tokens for sequence in sequences)
