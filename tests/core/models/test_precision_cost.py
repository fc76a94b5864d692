"""What 16 bits cost a base: measured against plain transformers, and without side effects."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import core.models
from core.batching.render import render_examples
from core.catalog.families import FAMILIES, family_of
from core.models.load import load_base, load_tokenizer
from core.models.precision_cost import (
    cast,
    measure_cost,
    outputs_of,
    read_texts,
)
from core.models.precision_texts import CHATS, LONGEST_TEXT, TEXTS
from core.spec.base_model import BaseModelSpec
from core.spec.precision import HIGHEST_KL_NATS

CPU = torch.device("cpu")
TINY = BaseModelSpec(id="tiny", source=f"{core.models.__path__[0]}/tiny")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_base_that_is_cast_is_the_base_that_is_loaded_so(model_type, dtype, base_of):
    base = base_of(model_type)
    task = family_of(model_type).own_task
    loaded, changed = (load_base(base, each, CPU, task=task) for each in (dtype, torch.float32))
    cast(changed, dtype)
    assert {name: each.dtype for name, each in changed.named_parameters()} == {
        name: each.dtype for name, each in loaded.named_parameters()
    }
    batch = read_texts(load_tokenizer(base), 40, with_chats=False)
    with torch.no_grad():
        assert torch.equal(outputs_of(changed, batch), outputs_of(loaded, batch))


@torch.no_grad()
def test_the_cost_is_the_divergence_that_plain_transformers_shows():
    tokenizer = load_tokenizer(TINY)
    texts = [tokenizer(text)["input_ids"] for text in TEXTS]
    texts += [row.tokens for row in render_examples(tokenizer, list(enumerate(CHATS)))]
    divergences = []
    models = [
        AutoModelForCausalLM.from_pretrained(TINY.source, dtype=dtype).eval()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    for text in texts:
        ids_1T = torch.tensor([text[:LONGEST_TEXT]])
        exact, rough = (model(ids_1T).logits[0].float().log_softmax(-1) for model in models)
        divergences.append((exact.exp() * (exact - rough)).sum(-1))
    expected = torch.cat(divergences)
    found = measure_cost(TINY, "bf16", CPU)
    assert found.tokens == len(expected)
    # texts are read beside each other here, which rounds otherwise
    assert found.kl_nats == pytest.approx(float(expected.mean()), rel=0.2)
    assert found.kl_p99_nats == pytest.approx(float(expected.quantile(0.99)), rel=0.5)
    assert found.kl_nats < HIGHEST_KL_NATS / 4 and not found.is_high


def test_three_bits_more_of_a_number_cost_sixty_times_less():
    coarse, fine = (measure_cost(TINY, format_, CPU) for format_ in ("bf16", "fp16"))
    # errors of an eighth, and a divergence grows with their square
    assert 30 < coarse.kl_nats / fine.kl_nats < 130


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_an_encoder_is_judged_by_its_states(model_type, base_of):
    cost = measure_cost(base_of(model_type), "bf16", CPU)
    assert cost.kl_nats is None and 1e-4 < cost.state_error < 0.05


@pytest.mark.parametrize("model_type", ["t5", "bart", "gemma2", "gpt2"])
def test_every_kind_that_writes_is_judged_by_what_it_would_write(model_type, base_of):
    cost = measure_cost(base_of(model_type), "bf16", CPU)
    assert cost.state_error is None and 1e-6 < cost.kl_nats <= cost.kl_p99_nats


def test_a_base_with_far_apart_logits_costs_much(base_of):
    calm, wild = base_of("llama"), base_of("llama", seed=1, initializer_range=1.0)
    assert not measure_cost(calm, "bf16", CPU).is_high
    assert measure_cost(wild, "bf16", CPU).is_high


def test_numbers_beyond_fp16_are_found(base_of):
    base = base_of("llama")
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight *= 1e5
    model.save_pretrained(base.source)
    assert measure_cost(base, "bf16", CPU).is_finite
    cost = measure_cost(base, "fp16", CPU)
    assert not cost.is_finite and cost.is_high and "too narrow" in str(cost)


def test_measuring_touches_nothing_that_other_threads_use(base_of, monkeypatch):
    base = base_of("llama", dtype=torch.bfloat16)
    seen = []
    monkeypatch.setattr(torch, "set_default_dtype", seen.append)
    before = torch.get_rng_state()
    measure_cost(base, "bf16", CPU)
    assert set(seen) <= {torch.float32}
    assert torch.equal(torch.get_rng_state(), before)
