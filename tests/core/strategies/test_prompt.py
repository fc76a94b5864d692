import peft
import pytest
import torch
from safetensors.torch import save_file

from core.batching.packing import lay_out
from core.batching.padding import pad
from core.batching.rows import SourceTargetRow
from core.models.attention import use_packed_attention
from core.models.class_head import class_logits
from core.models.output_head import output_head
from core.spec.strategy import PromptSpec
from core.strategies.attach import attach
from tests.core.strategies.peft_twin import alone, twins
from tests.core.tiny import DECODERS, ENCODER_DECODERS, ENCODERS

P = 5
TEXTS = [list(range(30, 42)), list(range(100, 130)), [7, 8, 9]]


def both(tiny_model, model_type, labels=None):
    return twins(tiny_model, model_type, PromptSpec(virtual_tokens=P), labels)


@pytest.mark.parametrize("model_type", DECODERS)
def test_weights_logits_and_gradients_of_packed_texts_equal_peft(tiny_model, model_type):
    attached, reference = both(tiny_model, model_type)
    use_packed_attention(attached.model)
    states_TE = attached.hidden_states(lay_out(TEXTS, torch.device("cpu")))
    logits = output_head(attached.model).logits(states_TE.detach())
    answers = [reference(**alone(text), output_hidden_states=True) for text in TEXTS]
    expected = torch.cat([answer.logits[0, P:] for answer in answers])
    torch.testing.assert_close(logits, expected, rtol=0, atol=6e-6)
    states_TE.square().sum().backward()
    sum(answer.hidden_states[-1][0, P:].square().sum() for answer in answers).backward()
    theirs = reference.prompt_encoder["default"].embedding.weight.grad
    ours = attached.trainable["prompt_embeddings"].grad
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", [*DECODERS, *ENCODERS])
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


@pytest.mark.parametrize("text", ["ab", "a long text with more tokens than there are to fill"])
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "bert", "t5"])
def test_text_is_repeated_and_cut_as_peft_does(
    tiny_model, tiny_tokenizer, tmp_path, text, model_type
):
    labels = 2 if model_type == "bert" else None
    tokenizer = tiny_tokenizer(model_type)
    tokenizer.save_pretrained(tmp_path)
    spec = PromptSpec(virtual_tokens=P, init_text=text)
    attached = attach(tiny_model(model_type, labels=labels), spec, tokenizer)
    config = peft.PromptTuningConfig(
        task_type=attached.config.task_type,
        num_virtual_tokens=P,
        num_transformer_submodules=1,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=str(tmp_path),
    )
    reference = peft.get_peft_model(tiny_model(model_type, labels=labels), config)
    expected = peft.get_peft_model_state_dict(reference)["prompt_embeddings"]
    assert torch.equal(attached.state()["prompt_embeddings"], expected)


def test_file_loads_in_peft(tiny_model, tmp_path):
    attached, _ = both(tiny_model, "qwen3")
    attached.config.save_pretrained(str(tmp_path))
    save_file(attached.state(), tmp_path / "adapter_model.safetensors")
    loaded = peft.PeftModel.from_pretrained(tiny_model("qwen3"), str(tmp_path))
    use_packed_attention(attached.model)
    states_TE = attached.hidden_states(lay_out(TEXTS[:1], torch.device("cpu")))
    logits = output_head(attached.model).logits(states_TE)
    expected = loaded(**alone(TEXTS[0])).logits[0, P:]
    torch.testing.assert_close(logits, expected, rtol=0, atol=6e-6)


def test_prompt_of_a_bf16_model_is_fp32(tiny_model):
    attached = attach(tiny_model().to(torch.bfloat16), PromptSpec(), None)
    assert attached.trainable["prompt_embeddings"].dtype == torch.float32
    use_packed_attention(attached.model)
    states_TE = attached.hidden_states(lay_out(TEXTS, torch.device("cpu")))
    assert states_TE.dtype == torch.bfloat16
