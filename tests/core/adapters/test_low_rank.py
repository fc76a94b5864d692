import peft
import pytest
import torch
from safetensors.torch import save_file

from core.adapters.low_rank import attach_low_rank
from core.errors import InvalidRequest
from core.spec.strategy import LoraSpec
from tests.core import tiny
from tests.core.adapters.reference import (
    attached_beside_peft,
    batch,
    disturb,
    gradients_of,
    logits_and_gradients,
    loss_curve,
    warnings_of_peft,
)

LORA = LoraSpec(rank=4, alpha=8)
VARIANTS = {
    "plain": LORA,
    "dropout": LoraSpec(rank=4, alpha=8, dropout=0.2),
    "rslora": LoraSpec(rank=4, alpha=8, use_rslora=True),
    "dora": LoraSpec(rank=4, alpha=8, use_dora=True),
    "dora with dropout": LoraSpec(rank=4, alpha=8, use_dora=True, dropout=0.2),
    "patterns": LoraSpec(
        rank=4,
        alpha=8,
        rank_pattern={"q_proj": 2, r"layers\.1\.mlp\..*_proj": 3},
        alpha_pattern={"^model.layers.0.self_attn.k_proj": 2.5, "v_proj": 4},
    ),
    "whole modules": LoraSpec(rank=4, alpha=8, modules_to_save=("lm_head", "model.norm")),
}
CASES = [
    *(("llama", spec, None) for spec in VARIANTS.values()),
    *((model_type, LORA, None) for model_type in tiny.DECODERS[1:]),
    *((model_type, LORA, None) for model_type in tiny.ENCODER_DECODERS),
    *((model_type, LORA, 3) for model_type in ("llama", "gpt2", *tiny.ENCODERS)),
    ("gpt2", VARIANTS["dora with dropout"], None),
    ("gemma2", LoraSpec(rank=4, modules_to_save=("embed_tokens",)), None),
    ("gemma2", LoraSpec(rank=4, modules_to_save=("lm_head",)), None),
]
NAMES = [
    *VARIANTS,
    *tiny.DECODERS[1:],
    *tiny.ENCODER_DECODERS,
    *(f"classifying {model_type}" for model_type in ("llama", "gpt2", *tiny.ENCODERS)),
    "dora on gpt2",
    "tied embeddings whole",
    "tied head whole",
]
each_case = pytest.mark.parametrize(("model_type", "spec", "labels"), CASES, ids=NAMES)


@each_case
def test_weights_logits_and_gradients_equal_peft(model_type, spec, labels):
    adapted, reference = attached_beside_peft(attach_low_rank, spec, model_type, labels)
    expected = peft.get_peft_model_state_dict(reference)
    assert adapted.state().keys() == expected.keys()
    for name, tensor in adapted.state().items():
        assert torch.equal(tensor, expected[name]), name

    disturb(adapted, reference)
    ours, theirs = (logits_and_gradients(m, labels) for m in (adapted.model, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    gradients = gradients_of(reference)
    assert gradients.keys() == {n for n, p in adapted.trainable.items() if p.grad is not None}
    for name, gradient in gradients.items():
        torch.testing.assert_close(adapted.trainable[name].grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "spec", "labels"),
    [
        *(("llama", spec, None) for spec in VARIANTS.values()),
        ("gpt2", LORA, None),
        ("bert", LORA, 3),
    ],
    ids=[*VARIANTS, "gpt2", "bert"],
)
def test_loss_curve_equals_peft(model_type, spec, labels):
    adapted, reference = attached_beside_peft(attach_low_rank, spec, model_type, labels)
    ours = loss_curve(adapted.model, adapted.parameters, labels)
    trained = [p for p in reference.parameters() if p.requires_grad]
    assert ours == pytest.approx(loss_curve(reference, trained, labels), abs=1e-4)
    assert ours[-1] < ours[0]


@each_case
def test_files_load_in_peft_with_the_same_answers(tmp_path, model_type, spec, labels):
    adapted, reference = attached_beside_peft(attach_low_rank, spec, model_type, labels)
    disturb(adapted, reference)
    adapted.config.save_pretrained(str(tmp_path))
    save_file(adapted.state(), tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    base = adapted.model.eval()
    with torch.no_grad():
        expected = base(**batch(labels)).logits
        adapted.remove()
        with warnings_of_peft():
            loaded = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
        torch.testing.assert_close(loaded(**batch(labels)).logits, expected, rtol=1e-4, atol=2e-5)


def test_removed_adapter_leaves_the_base_as_it_was():
    spec = LoraSpec(rank=4, modules_to_save=("lm_head",))
    base = tiny.tiny_model()
    with torch.no_grad():
        before = base(**batch()).logits
        adapted = attach_low_rank(base, spec)
        for parameter in adapted.parameters:
            parameter.add_(0.1)
        assert not torch.equal(base(**batch()).logits, before)
        adapted.remove()
        assert torch.equal(base(**batch()).logits, before)


def test_nothing_but_adapter_and_whole_modules_is_trained():
    adapted = attach_low_rank(tiny.tiny_model(), LoraSpec(rank=4, modules_to_save=("lm_head",)))
    trained = {id(p) for p in adapted.parameters}
    for parameter in adapted.model.parameters():
        assert parameter.requires_grad == (id(parameter) in trained)


def refused(**fields):
    base = tiny.tiny_model()
    before = dict(base.named_modules())
    with pytest.raises(InvalidRequest) as caught:
        attach_low_rank(base, LoraSpec(**fields))
    assert dict(base.named_modules()) == before
    return caught.value


def test_rank_above_the_width_of_a_layer_is_refused_with_both():
    error = refused(rank=17)
    assert (error.param, error.code) == ("strategy.rank", "rank_above_width")
    assert "Rank 17" in error.message
    assert "width 16 of model.layers.0.self_attn.k_proj" in error.message


def test_rank_pattern_can_lower_the_rank_of_narrow_layers():
    patterns = {"k_proj|v_proj": 16}
    adapted = attach_low_rank(tiny.tiny_model(), LoraSpec(rank=32, rank_pattern=patterns))
    ranks = {p.shape[0] for n, p in adapted.trainable.items() if "lora_A" in n}
    assert ranks == {16, 32}


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_pattern_that_fits_no_layer_is_refused(field):
    error = refused(rank=4, **{field: {"q_prj": 2}})
    assert (error.param, error.code) == (f"strategy.{field}", "unknown_target_module")
    assert "q_proj" in error.message


def test_whole_modules_that_leave_nothing_to_adapt_are_refused():
    error = refused(rank=4, target_modules=("q_proj",), modules_to_save=("self_attn",))
    assert error.param == "strategy.target_modules"
