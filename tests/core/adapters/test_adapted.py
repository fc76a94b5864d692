import pytest
import torch
from torch import nn

from core.batching.packing import lay_out
from core.batching.padding import pad
from core.batching.rows import SourceTargetRow
from core.errors import InvalidRequest
from core.models.attention import use_packed_attention
from core.models.output_head import output_head
from core.spec.strategy import BottleneckSpec, PrefixSpec, PromptSpec
from core.strategies.attach import attach

SOFT = [
    BottleneckSpec(placement="houlsby", reduction_factor=8),
    PrefixSpec(virtual_tokens=5),
    PromptSpec(virtual_tokens=5),
]
TEXTS = [[7, 8, 9, 10, 11, 12], [20, 21, 22], list(range(40, 70))]


def by_type(spec):
    return spec.type


def attached(tiny_model, spec, model_type="llama", **changes):
    """A packed model with weights that all have an effect."""
    model = tiny_model(model_type, **changes)
    if not model.config.is_encoder_decoder:
        use_packed_attention(model)
    torch.manual_seed(3)
    adapted = attach(model, spec, None)
    for parameter in adapted.parameters:
        nn.init.normal_(parameter, std=0.5)
    return adapted


def padded():
    rows = [SourceTargetRow(1, (5, 6, 7, 8), (9, 10, 11)), SourceTargetRow(2, (12, 13), (14, 15))]
    return pad(rows, 0, 0, torch.device("cpu"))


@pytest.mark.parametrize("spec", SOFT, ids=by_type)
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2"])
def test_states_of_packed_texts_are_those_of_each_text_alone(tiny_model, spec, model_type):
    adapted = attached(tiny_model, spec, model_type)
    states_TE = adapted.hidden_states(lay_out(TEXTS, torch.device("cpu")))
    assert len(states_TE) == sum(map(len, TEXTS))
    alone = [adapted.hidden_states(lay_out([text], torch.device("cpu"))) for text in TEXTS]
    torch.testing.assert_close(states_TE, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_soft_tokens_stand_before_the_tokens_of_each_segment(tiny_model):
    adapted = attached(tiny_model, PromptSpec(virtual_tokens=5))
    batch = lay_out(TEXTS, torch.device("cpu"))
    states_TE, lengths = adapted.all_states(batch)
    assert lengths == [11, 8, 35]
    assert len(states_TE) == sum(lengths)
    real = [segment[5:] for segment in states_TE.split(lengths)]
    assert torch.equal(torch.cat(real), adapted.hidden_states(batch))


@pytest.mark.parametrize("spec", SOFT, ids=by_type)
def test_off_runs_the_base_itself(tiny_model, spec):
    batch = lay_out(TEXTS, torch.device("cpu"))
    base = tiny_model("llama")
    use_packed_attention(base)
    adapted = attached(tiny_model, spec)
    tuned = adapted.hidden_states(batch)
    with adapted.off():
        plain = adapted.hidden_states(batch)
    expected = base.base_model(
        input_ids=batch.tokens_1T,
        position_ids=batch.positions_1T,
        segment_lengths=batch.segment_lengths,
        use_cache=False,
    )
    assert torch.equal(plain, expected.last_hidden_state[0])
    assert not torch.allclose(plain, tuned, atol=0.1)
    assert torch.equal(adapted.hidden_states(batch), tuned)


@pytest.mark.parametrize("spec", SOFT, ids=by_type)
@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_off_runs_the_base_of_an_encoder_decoder_itself(tiny_model, spec, model_type):
    batch = padded()
    adapted = attached(tiny_model, spec, model_type)
    tuned = adapted.decoder_states(batch)
    with adapted.off():
        plain = adapted.decoder_states(batch)
    expected = tiny_model(model_type)(
        input_ids=batch.source_tokens_BS,
        attention_mask=batch.source_mask_BS,
        decoder_input_ids=batch.decoder_tokens_BD,
    )
    logits = output_head(adapted.model).logits(plain)
    torch.testing.assert_close(logits, expected.logits.flatten(0, 1), rtol=0, atol=1e-6)
    assert not torch.allclose(plain, tuned, atol=0.1)


# PEFT refuses prefix tuning with gradient checkpointing altogether.
@pytest.mark.parametrize("spec", SOFT, ids=by_type)
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2", "bert"])
def test_gradient_checkpointing_changes_no_gradient(tiny_model, spec, model_type):
    labels = {"labels": 3} if model_type == "bert" else {}
    gradients = []
    for checkpointing in (False, True):
        adapted = attached(tiny_model, spec, model_type, **labels)
        if checkpointing:
            adapted.model.activation_checkpointing_enable({"use_reentrant": False})
            assert adapted.model.base_model.gradient_checkpointing
        adapted.model.train()
        states_TE = adapted.hidden_states(lay_out(TEXTS, torch.device("cpu")))
        states_TE.square().sum().backward()
        gradients.append({name: p.grad for name, p in adapted.trainable.items()})
    for name, gradient in gradients[0].items():
        if gradient is not None:  # the head of a classifier is not part of this loss
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)


def test_prefix_of_an_encoder_decoder_is_never_dropped_by_gradient_checkpointing(tiny_model):
    adapted = attached(tiny_model, PrefixSpec(), "t5")
    adapted.model.activation_checkpointing_enable({"use_reentrant": False})
    adapted.model.train()
    with pytest.raises(InvalidRequest, match="gradient checkpointing"):
        adapted.decoder_states(padded())


@pytest.mark.parametrize("spec", SOFT, ids=by_type)
def test_virtual_tokens_and_layers_count_once(tiny_model, spec):
    base = sum(parameter.numel() for parameter in tiny_model().parameters())
    adapted = attached(tiny_model, spec)
    assert adapted.total_parameters == base + adapted.trainable_parameters


@pytest.mark.parametrize("spec", SOFT, ids=by_type)
def test_nothing_but_the_strategy_gets_a_gradient(tiny_model, spec):
    adapted = attached(tiny_model, spec)
    trained = {id(parameter) for parameter in adapted.parameters}
    assert all(parameter.requires_grad for parameter in adapted.parameters)
    for parameter in adapted.model.parameters():
        assert parameter.requires_grad == (id(parameter) in trained)
