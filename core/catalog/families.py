"""The facts of each model family, one row for each.

The key is `model_type` of the Hugging Face config; `family.py` explains each fact.
"""

from collections.abc import Mapping
from typing import Any

from core.catalog.family import AttentionFields, Blocks, Family, Layers, OutputFields
from core.errors import InvalidRequest

RELATIVE_CONTEXT_LENGTH = 131_072
"""The maximum row length of models with relative positions, which have no limit themselves."""


def _decoder(model_type: str, layers: Layers, blocks: Blocks, **facts: Any) -> Family:
    return Family(
        model_type,
        "decoder",
        "packed",
        layers,
        (blocks,),
        head=("score",),
        class_head="last token",
        **facts,
    )


_LLAMA_LAYERS = Layers(
    query=("q_proj",),
    key=("k_proj",),
    value=("v_proj",),
    output=("o_proj",),
    up=("up_proj",),
    down=("down_proj",),
    gate=("gate_proj",),
)
_LLAMA_BLOCKS = Blocks("model.layers", "self_attn", "mlp")
_LLAMA_INPUTS = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")

_FAMILIES = (
    *(
        _decoder(model_type, _LLAMA_LAYERS, _LLAMA_BLOCKS, same_input=_LLAMA_INPUTS)
        for model_type in ("llama", "mistral", "qwen2", "qwen3")
    ),
    *(
        _decoder(
            model_type,
            _LLAMA_LAYERS,
            _LLAMA_BLOCKS,
            output=OutputFields(softcap="final_logit_softcapping"),
            same_input=_LLAMA_INPUTS,
        )
        for model_type in ("gemma2", "gemma3_text")
    ),
    # One layer makes query, key and value, another the gate and the way up: `query-value` adapts
    # the keys too, and `attention+ffn` the gate.
    _decoder(
        "phi3",
        Layers(
            query=("qkv_proj",),
            key=("qkv_proj",),
            value=("qkv_proj",),
            output=("o_proj",),
            up=("gate_up_proj",),
            down=("down_proj",),
        ),
        _LLAMA_BLOCKS,
    ),
    # One layer computes query, key and value; there is no gate.
    _decoder(
        "gpt2",
        Layers(
            query=("attn.c_attn",),
            key=("attn.c_attn",),
            value=("attn.c_attn",),
            output=("attn.c_proj",),
            up=("mlp.c_fc",),
            down=("mlp.c_proj",),
        ),
        Blocks("transformer.h", "attn", "mlp"),
        positions="n_positions",
        width="n_embd",
    ),
    # The first T5 has `wi`; later ones have the gate `wi_0` and the up projection `wi_1`.
    Family(
        "t5",
        "encoder-decoder",
        "padded",
        Layers(
            query=("q",),
            key=("k",),
            value=("v",),
            output=("o",),
            up=("wi", "wi_1"),
            down=("wo",),
            gate=("wi_0",),
        ),
        (
            Blocks("encoder.block", "layer.0.SelfAttention", "layer.1.DenseReluDense"),
            Blocks("decoder.block", "layer.0.SelfAttention", "layer.2.DenseReluDense"),
        ),
        positions=None,
        width="d_model",
        output=OutputFields(scales_states="scale_decoder_outputs"),
        attention=AttentionFields(layers="num_decoder_layers", heads="num_heads", head_size="d_kv"),
    ),
    # There is no gate.
    Family(
        "bart",
        "encoder-decoder",
        "padded",
        Layers(
            query=("q_proj",),
            key=("k_proj",),
            value=("v_proj",),
            output=("out_proj",),
            up=("fc1",),
            down=("fc2",),
        ),
        (
            Blocks("model.encoder.layers", "self_attn", "fc2"),
            Blocks("model.decoder.layers", "self_attn", "fc2"),
        ),
        width="d_model",
        output=OutputFields(bias="final_logits_bias"),
        attention=AttentionFields(layers="decoder_layers", heads="decoder_attention_heads"),
    ),
    # No gate. A checkpoint for masked words has no pooler, so the pooler belongs to the head.
    Family(
        "bert",
        "encoder",
        "packed",
        Layers(
            query=("query",),
            key=("key",),
            value=("value",),
            output=("attention.output.dense",),
            up=("intermediate.dense",),
            down=("output.dense",),
        ),
        (Blocks("bert.encoder.layer", "attention.output.dropout", "output.dropout"),),
        head=("pooler", "classifier"),
        class_head="pooler",
    ),
    # One layer makes query, key and value, another the gate and the way up: `query-value` adapts
    # the keys too, and `attention+ffn` the gate.
    Family(
        "modernbert",
        "encoder",
        "packed",
        Layers(
            query=("attn.Wqkv",),
            key=("attn.Wqkv",),
            value=("attn.Wqkv",),
            output=("attn.Wo",),
            up=("mlp.Wi",),
            down=("mlp.Wo",),
        ),
        (Blocks("model.layers", "attn", "mlp"),),
        head=("head", "classifier"),
        class_head="pooled states",
        takes_prefix=False,
    ),
)

FAMILIES: dict[str, Family] = {family.model_type: family for family in _FAMILIES}


def family_of(model_type: str) -> Family:
    """Return the family of a config's `model_type`; InvalidRequest if it is not supported."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise InvalidRequest(
            f"Models of type {model_type!r} are not supported. Supported types: {known}.",
            param="model",
            code="unsupported_model",
        ) from None


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return the maximum tokens of a row according to a config, or None if it does not say.

    In an encoder-decoder it is the limit of source and target each. Raises InvalidRequest if the
    family is not supported.
    """
    positions = family_of(config["model_type"]).positions
    if positions is None:
        return RELATIVE_CONTEXT_LENGTH
    limit = config.get(positions)
    return limit if isinstance(limit, int) else None


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """Return the hidden size between blocks, or None if the config does not say.

    Raises InvalidRequest if the family is not supported.
    """
    size = config.get(family_of(config["model_type"]).width)
    return size if isinstance(size, int) and size > 0 else None
