import peft
import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from core.batching.packing import lay_out
from core.batching.padding import pad
from core.batching.rows import SourceTargetRow
from core.models.attention import use_packed_attention
from core.models.class_head import class_logits
from core.models.output_head import output_head
from core.spec.strategy import PrefixSpec
from core.strategies.attach import attach
from tests.core.strategies.peft_twin import alone, twins
from tests.core.tiny import DECODERS, ENCODER_DECODERS

P = 5
TEXTS = [list(range(30, 42)), list(range(100, 130)), [7, 8, 9]]


def both(tiny_model, model_type, labels=None):
    return twins(tiny_model, model_type, PrefixSpec(virtual_tokens=P), labels)


@pytest.mark.parametrize("model_type", DECODERS)
def test_weights_logits_and_gradients_of_packed_texts_equal_peft(tiny_model, model_type):
    attached, reference = both(tiny_model, model_type)
    use_packed_attention(attached.model)
    states_TE = attached.hidden_states(lay_out(TEXTS, torch.device("cpu")))
    logits = output_head(attached.model).logits(states_TE.detach())
    answers = [reference(**alone(text), output_hidden_states=True) for text in TEXTS]
    expected = torch.cat([answer.logits[0] for answer in answers])
    torch.testing.assert_close(logits, expected, rtol=0, atol=6e-6)
    states_TE.square().sum().backward()
    sum(answer.hidden_states[-1][0].square().sum() for answer in answers).backward()
    theirs = reference.prompt_encoder["default"].embedding.weight.grad
    ours = attached.trainable["prompt_embeddings"].grad
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", [*DECODERS, "bert"])
def test_classifier_equals_peft(tiny_model, model_type):
    attached, reference = both(tiny_model, model_type, labels=3)
    use_packed_attention(attached.model)
    states_TE, lengths = attached.all_states(lay_out(TEXTS, torch.device("cpu")))
    logits = class_logits(attached.model, states_TE, lengths)
    expected = torch.cat([reference(**alone(text)).logits for text in TEXTS])
    torch.testing.assert_close(logits, expected, rtol=0, atol=6e-6)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in attached.parameters)


@pytest.mark.parametrize("model_type", ENCODER_DECODERS)
def test_encoder_decoder_equals_peft(tiny_model, model_type):
    attached, reference = both(tiny_model, model_type)
    rows = [SourceTargetRow(1, (5, 6, 7, 8), (9, 10)), SourceTargetRow(2, (12, 13), (14, 15, 16))]
    batch = pad(rows, 0, 0, torch.device("cpu"))
    logits = output_head(attached.model).logits(attached.decoder_states(batch))
    expected = reference(
        input_ids=batch.source_tokens_BS,
        attention_mask=batch.source_mask_BS,
        decoder_input_ids=batch.decoder_tokens_BD,
    )
    torch.testing.assert_close(logits, expected.logits.flatten(0, 1), rtol=0, atol=6e-6)


def test_file_loads_in_peft(tiny_model, tmp_path):
    attached, _ = both(tiny_model, "qwen3")
    attached.config.save_pretrained(str(tmp_path))
    save_file(attached.state(), tmp_path / "adapter_model.safetensors")
    loaded = peft.PeftModel.from_pretrained(tiny_model("qwen3"), str(tmp_path))
    use_packed_attention(attached.model)
    states_TE = attached.hidden_states(lay_out(TEXTS[:1], torch.device("cpu")))
    logits = output_head(attached.model).logits(states_TE)
    expected = loaded(**alone(TEXTS[0])).logits[0]
    torch.testing.assert_close(logits, expected, rtol=0, atol=6e-6)


def test_prefix_of_a_bf16_model_is_fp32(tiny_model):
    attached = attach(tiny_model().to(torch.bfloat16), PrefixSpec(), None)
    assert attached.trainable["prompt_embeddings"].dtype == torch.float32
    use_packed_attention(attached.model)
    states_TE = attached.hidden_states(lay_out(TEXTS, torch.device("cpu")))
    assert states_TE.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("t5", {"num_layers": 1, "num_decoder_layers": 3}),
        ("t5", {"d_kv": 6}),
        ("bart", {"decoder_layers": 3, "decoder_attention_heads": 2}),
    ],
)
def test_shape_is_that_of_the_decoder(tiny_model, model_type, changes):
    attached = attach(tiny_model(model_type, **changes), PrefixSpec(virtual_tokens=P), None)
    reference = peft.get_peft_model(tiny_model(model_type, **changes), attached.config).eval()
    reference.prompt_encoder["default"].load_prompt_embeddings(
        attached.state()["prompt_embeddings"]
    )
    batch = pad([SourceTargetRow(1, (5, 6, 7, 8), (9, 10, 11))], 0, 0, torch.device("cpu"))
    logits = output_head(attached.model).logits(attached.decoder_states(batch))
    expected = reference(
        input_ids=batch.source_tokens_BS,
        attention_mask=batch.source_mask_BS,
        decoder_input_ids=batch.decoder_tokens_BD,
    )
    torch.testing.assert_close(logits, expected.logits.flatten(0, 1), rtol=0, atol=6e-6)


def test_llama2_7b_has_the_known_number_of_trainable_parameters():
    config = LlamaConfig(num_key_value_heads=32)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    attached = attach(model, PrefixSpec(virtual_tokens=20), None)
    assert attached.trainable_parameters == 20 * 32 * 2 * 4096
