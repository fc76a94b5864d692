from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from core.models import heads
from core.models.heads import labelled_cross_entropy
from core.models.output_head import OutputHead, output_head
from tests.core import tiny

VARIANTS = {
    "plain": {},
    "biased": {"bias": True},
    "scaled": {"scale": 0.3},
    "capped": {"softcap": 1.5},
    "all of it": {"bias": True, "scale": 0.3, "softcap": 1.5},
}


def example(variant, dtype=torch.float32, trained=False, tokens=11, hidden=8, vocabulary=17):
    torch.manual_seed(0)
    options = dict(VARIANTS[variant])
    bias_V = torch.randn(vocabulary, dtype=dtype) if options.pop("bias", False) else None
    hidden_LE = torch.randn(tokens, hidden, dtype=dtype, requires_grad=True)
    weight_VE = torch.randn(vocabulary, hidden, dtype=dtype, requires_grad=trained)
    targets_L = torch.randint(0, vocabulary, (tokens,))
    return hidden_LE, OutputHead(weight_VE, bias_V, **options), targets_L


def plain_logits(hidden_LE, head):
    logits_LV = (hidden_LE * head.scale) @ head.weight_VE.t()
    if head.bias_V is not None:
        logits_LV = logits_LV + head.bias_V
    if head.softcap is not None:
        logits_LV = head.softcap * torch.tanh(logits_LV / head.softcap)
    return logits_LV


@pytest.mark.parametrize("chunk_tokens", [1, 100], ids=["one token per chunk", "one chunk"])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_gradients_and_hits_equal_plain_cross_entropy(
    variant, trained, chunk_tokens, monkeypatch
):
    monkeypatch.setattr(heads, "chunk_tokens", lambda _: chunk_tokens)
    hidden_LE, head, targets_L = example(variant, trained=trained)
    found = labelled_cross_entropy(hidden_LE, head, targets_L)
    (found.loss / 11).backward()
    gradients = hidden_LE.grad, head.weight_VE.grad
    hidden_LE.grad = head.weight_VE.grad = None

    logits_LV = plain_logits(hidden_LE, head)
    losses_L = cross_entropy(logits_LV, targets_L, reduction="none")
    losses_L.mean().backward()
    torch.testing.assert_close(found.loss, losses_L.sum())
    torch.testing.assert_close(found.losses_L, losses_L.detach())
    assert found.correct == (logits_LV.argmax(-1) == targets_L).sum()
    torch.testing.assert_close(gradients[0], hidden_LE.grad)
    if trained:
        torch.testing.assert_close(gradients[1], head.weight_VE.grad)
    else:
        assert gradients[1] is None


def fp64_example(variant, trained):
    return example(variant, torch.float64, trained, tokens=4, hidden=5, vocabulary=7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_of_the_states_is_that_of_finite_differences(variant):
    hidden_LE, head, targets_L = fp64_example(variant, trained=False)
    assert torch.autograd.gradcheck(
        lambda hidden_LE: labelled_cross_entropy(hidden_LE, head, targets_L).loss, (hidden_LE,)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_of_the_head_is_that_of_finite_differences(variant):
    """By hand, since `gradcheck` goes back through a graph twice, which this one does not allow."""
    hidden_LE, head, targets_L = fp64_example(variant, trained=True)
    labelled_cross_entropy(hidden_LE, head, targets_L).loss.backward()
    found_VE, weight_VE = head.weight_VE.grad, head.weight_VE.detach()
    for index in range(weight_VE.numel()):
        step_VE = torch.zeros_like(weight_VE)
        step_VE.view(-1)[index] = 1e-6
        above, below = (
            labelled_cross_entropy(
                hidden_LE, replace(head, weight_VE=weight_VE + sign * step_VE), targets_L
            ).loss
            for sign in (1, -1)
        )
        torch.testing.assert_close(
            found_VE.view(-1)[index], ((above - below) / 2e-6).detach(), rtol=1e-5, atol=1e-7
        )


def test_a_second_way_back_through_a_trained_head_is_refused():
    hidden_LE, head, targets_L = example("plain", trained=True)
    loss = labelled_cross_entropy(hidden_LE, head, targets_L).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_states_without_a_gradient_still_train_the_head():
    hidden_LE, head, targets_L = example("plain", trained=True)
    labelled_cross_entropy(hidden_LE, head, targets_L).loss.backward()
    expected, head.weight_VE.grad = head.weight_VE.grad, None
    labelled_cross_entropy(hidden_LE.detach(), head, targets_L).loss.backward()
    assert torch.equal(head.weight_VE.grad, expected)


def test_logits_of_a_few_tokens_exist_at_one_time(monkeypatch):
    monkeypatch.setattr(heads, "chunk_tokens", lambda _: 3)
    tokens, logits = [], OutputHead.logits

    def counted(head, hidden_CE):
        tokens.append(len(hidden_CE))
        return logits(head, hidden_CE)

    monkeypatch.setattr(OutputHead, "logits", counted)
    labelled_cross_entropy(*example("plain", trained=True)).loss.backward()
    assert tokens == [3, 3, 3, 2]


def test_nothing_is_differentiated_without_gradients():
    hidden_LE, head, targets_L = example("capped")
    with torch.no_grad():
        assert not labelled_cross_entropy(hidden_LE, head, targets_L).loss.requires_grad


def test_sum_of_bf16_states_is_fp32():
    hidden_LE, head, targets_L = example("plain", torch.bfloat16, trained=True)
    found = labelled_cross_entropy(hidden_LE, head, targets_L)
    found.loss.backward()
    assert found.loss.dtype == found.losses_L.dtype == torch.float32
    assert hidden_LE.grad.dtype == head.weight_VE.grad.dtype == torch.bfloat16


def test_gradient_of_a_bf16_head_is_summed_in_fp32(monkeypatch):
    """Summed in bf16, token by token, it would be several percent off."""
    monkeypatch.setattr(heads, "chunk_tokens", lambda _: 1)
    hidden_LE, head, targets_L = example("plain", torch.bfloat16, trained=True, tokens=600)
    labelled_cross_entropy(hidden_LE, head, targets_L).loss.backward()
    weight_VE = head.weight_VE.detach().float().requires_grad_()
    logits_LV = hidden_LE.detach().float() @ weight_VE.t()
    cross_entropy(logits_LV, targets_L, reduction="sum").backward()
    torch.testing.assert_close(head.weight_VE.grad.float(), weight_VE.grad, rtol=0.02, atol=0.3)


def test_fp32_weights_take_states_of_half_the_width():
    hidden_LE, head, targets_L = example("biased", trained=True)
    half_LE = hidden_LE.detach().to(torch.bfloat16).requires_grad_()
    labelled_cross_entropy(half_LE, head, targets_L).loss.backward()
    assert half_LE.grad.dtype == torch.bfloat16
    assert head.weight_VE.grad.dtype == torch.float32


def test_a_scaled_fp16_loss_keeps_finite_gradients():
    hidden_LE, head, targets_L = example("plain", torch.float16)
    loss = labelled_cross_entropy(hidden_LE, head, targets_L).loss
    (loss * 2.0**17 / 2**10).backward()  # the scale alone would be infinite in fp16
    assert hidden_LE.grad.isfinite().all()
    labelled_cross_entropy(hidden_LE, head, targets_L).loss.mul(2.0**17).mul(1e-3).backward()
    assert hidden_LE.grad.isfinite().all()


CAUSAL = [
    ("llama", {}),
    ("gemma2", {"final_logit_softcapping": 2.0}),
    ("gemma3_text", {"final_logit_softcapping": 2.0}),
    ("gpt2", {}),
    ("phi3", {"tie_word_embeddings": True}),
]


@pytest.mark.parametrize(("model_type", "changes"), CAUSAL, ids=[name for name, _ in CAUSAL])
def test_full_training_of_a_causal_model_equals_transformers(model_type, changes):
    model = tiny.tiny_model(model_type, **changes)
    tokens = torch.randint(5, 256, (1, 30), generator=torch.Generator().manual_seed(2))
    expected = model(input_ids=tokens, labels=tokens, use_cache=False)
    expected.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    states_TE = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[0]
    found = labelled_cross_entropy(states_TE[:-1], output_head(model), tokens[0, 1:])
    (found.loss / 29).backward()
    torch.testing.assert_close(found.loss / 29, expected.loss)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


SEQ2SEQ = [
    ("t5", {}),
    ("t5", {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}),
    ("bart", {}),
]


@pytest.mark.parametrize(("model_type", "changes"), SEQ2SEQ, ids=["t5", "t5 v1.1", "bart"])
def test_loss_of_an_encoder_decoder_equals_transformers(model_type, changes):
    model = tiny.tiny_model(model_type, **changes)
    if model_type == "bart":
        torch.nn.init.normal_(model.final_logits_bias)
    source, target = torch.randint(5, 256, (2, 1, 12), generator=torch.Generator().manual_seed(2))
    expected = model(input_ids=source, labels=target)
    decoder = model.get_decoder()
    states = []
    handle = decoder.register_forward_hook(lambda *call: states.append(call[2][0]))
    model(input_ids=source, labels=target)
    handle.remove()
    found = labelled_cross_entropy(states[0][0], output_head(model), target[0])
    torch.testing.assert_close(found.loss / 12, expected.loss)


def test_scale_of_t5_survives_saving(base_of):
    """transformers ties T5 v1.1's embeddings in the config, and remembers the scale apart."""
    from transformers import AutoModelForSeq2SeqLM

    base = base_of("t5", tie_word_embeddings=False)
    assert output_head(AutoModelForSeq2SeqLM.from_pretrained(base.source)).scale == 1.0
    base = base_of("t5", seed=1)
    assert output_head(AutoModelForSeq2SeqLM.from_pretrained(base.source)).scale == 32**-0.5


@pytest.mark.parametrize(("vocabulary", "tokens"), [(16_384, 256), (151_936, 64)])
def test_chunks_are_bounded_in_bytes_but_never_tiny(vocabulary, tokens):
    assert heads.chunk_tokens(torch.empty(vocabulary, 1)) == tokens
