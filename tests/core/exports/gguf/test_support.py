import pytest

from core.errors import InvalidRequest
from core.exports.gguf.support import FAMILIES, require_adapter, require_family

LORA = {"peft_type": "LORA", "bias": "none", "modules_to_save": None, "use_dora": False}


GEMMA = {"num_hidden_layers": 12, "hidden_size": 64, "num_attention_heads": 2, "head_dim": 8}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_supported(family):
    require_family({"model_type": family, "architectures": ["SomeForCausalLM"], **GEMMA})


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("gemma2", {"query_pre_attn_scalar": 16}, "by 8, not by its query_pre_attn_scalar of 16"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 12}, "each 6th a window"),
    ],
)
def test_a_gemma_that_llama_cpp_would_compute_otherwise_is_refused(family, changes, reason):
    config = {"model_type": family, "architectures": ["GemmaForCausalLM"], **GEMMA, **changes}
    with pytest.raises(InvalidRequest, match=reason):
        require_family(config)


def test_the_27b_models_have_a_scale_of_their_own():
    sizes = {"num_hidden_layers": 46, "hidden_size": 4608, "num_attention_heads": 32}
    config = {"model_type": "gemma2", "architectures": ["GemmaForCausalLM"], "head_dim": 128}
    require_family(config | sizes | {"query_pre_attn_scalar": 144})


@pytest.mark.parametrize("family", ["gpt2", "bert", "modernbert", "t5", "bart", None])
def test_other_families_are_named(family):
    with pytest.raises(InvalidRequest, match=str(family)) as refused:
        require_family({"model_type": family, "architectures": ["SomeForCausalLM"]})
    assert refused.value.code == "gguf_unsupported"


def test_a_classifier_has_no_gguf():
    with pytest.raises(InvalidRequest, match="does not generate text"):
        require_family({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]})


def test_lora_is_supported():
    require_adapter(LORA | {"use_rslora": True, "alpha_pattern": {"q_proj": 3}})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "DoRA.*merged"),
        ({"modules_to_save": ["lm_head"]}, "whole modules.*merged"),
        ({"trainable_token_indices": [1]}, "rows of the embedding.*merged"),
        ({"bias": "all"}, "biases.*merged"),
        ({"peft_type": "IA3"}, "not IA3.*merged"),
        ({"peft_type": "PREFIX_TUNING"}, "virtual tokens; serve"),
        ({"peft_type": "PROMPT_TUNING"}, "virtual tokens; serve"),
    ],
)
def test_other_adapters_are_refused_with_the_reason(settings, reason):
    with pytest.raises(InvalidRequest, match=reason) as refused:
        require_adapter(LORA | settings)
    assert refused.value.code == "gguf_unsupported"
