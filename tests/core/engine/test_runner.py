"""Left-padded batches compute what each row computes alone, in every family of the catalog."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from core.engine.request import ModelKey, Request, Sequence
from core.engine.runner import Runner
from core.engine.scheduler import Group
from core.spec.generation import SamplingSpec
from core.spec.run import BaseModelSpec
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


@pytest.fixture(params=DECODERS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param, **WINDOWS.get(request.param, {}))


@pytest.fixture
def runner(model: PreTrainedModel) -> Runner:
    return Runner(lambda base: model, no_adapters, max_bases=1, max_adapters=1)


def no_adapters(sha256: str):
    raise AssertionError("no adapter was asked for")


def make_group(prompts: list[tuple[int, ...]], n: int = 1) -> Group:
    requests = [
        Request("r", MODEL, prompt, SamplingSpec(seed=0, n=n), 100, frozenset())
        for prompt in prompts
    ]
    return Group(MODEL, [Sequence(request, choice) for request in requests for choice in range(n)])


@torch.inference_mode()
def logits_alone(model: PreTrainedModel, sequence: Sequence) -> torch.Tensor:
    """Return the logits (V) after all tokens of a sequence, without cache, batch or padding."""
    ids_BT = torch.tensor([[*sequence.request.prompt_tokens, *sequence.tokens]])
    return model(ids_BT, use_cache=False).logits[0, -1]


def run_turn(turn: Callable[[Group], torch.Tensor], group: Group, model: PreTrainedModel) -> None:
    """Run a turn, hold every row against the model alone, and take the most likely tokens."""
    logits_BV = turn(group)
    for sequence, logits_V in zip(group.sequences, logits_BV, strict=True):
        torch.testing.assert_close(logits_V, logits_alone(model, sequence), atol=1e-4, rtol=1e-4)
    for sequence, token in zip(group.sequences, logits_BV.argmax(-1).tolist(), strict=True):
        sequence.tokens.append(token)


def test_a_padded_batch_computes_what_each_row_computes_alone(model, runner):
    group = make_group(PROMPTS)
    run_turn(runner.prefill, group, model)
    for _ in range(10):
        run_turn(runner.decode, group, model)


def test_rows_may_leave_in_any_order(model, runner):
    group = make_group(PROMPTS)
    run_turn(runner.prefill, group, model)
    for kept in ([0, 2, 3], [1, 2], [0]):
        run_turn(runner.decode, group, model)
        group.sequences = [group.sequences[row] for row in kept]
        runner.retain(group, kept)
    run_turn(runner.decode, group, model)
    runner.retain(group, [])
    assert not runner._batches


def test_choices_share_the_prefill_of_their_prompt(model, runner):
    group = make_group(PROMPTS[1:3], n=3)
    run_turn(runner.prefill, group, model)
    for choice, sequence in enumerate(group.sequences):
        sequence.tokens[-1] = choice  # now they go apart
    run_turn(runner.decode, group, model)
    run_turn(runner.decode, group, model)


def test_two_groups_do_not_mix(model, runner):
    groups = [make_group(PROMPTS[:2]), make_group(PROMPTS[2:])]
    for group in groups:
        run_turn(runner.prefill, group, model)
    for group in groups * 2:
        run_turn(runner.decode, group, model)
    runner.release(groups[0])
    run_turn(runner.decode, groups[1], model)
