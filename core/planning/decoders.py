"""The outlines of decoders."""

from core.planning.fields import Fields
from core.planning.gpt2 import gpt2
from core.planning.outline import AttentionShape, Outline

_WITHOUT_BIASES = ("mistral", "phi3")


def decoder(fields: Fields, labels: int | None) -> Outline:
    """Return a decoder with its language head; with `labels`, with a head for these instead."""
    outline = gpt2(fields) if fields.model_type == "gpt2" else _llama(fields)
    vocabulary, width = fields.size("vocab_size"), outline.width
    if labels is not None:
        outline.add_linear("score", width, labels, bias=False)
        return outline
    embeddings = "transformer.wte" if fields.model_type == "gpt2" else "model.embed_tokens"
    is_tied = fields.flag("tie_word_embeddings")
    like = f"{embeddings}.weight" if is_tied else None
    outline.add_matrix("lm_head", vocabulary, width, like=like)
    return outline


def attention_shape(fields: Fields) -> AttentionShape:
    """Return the shape of attention in Llama and its relatives."""
    width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    return AttentionShape(
        fields.size("num_hidden_layers"),
        heads,
        fields.size_or_none("num_key_value_heads") or heads,
        fields.size_or_none("head_dim") or width // heads,
    )


def _llama(fields: Fields) -> Outline:
    kind, width = fields.model_type, fields.size("hidden_size")
    shape = attention_shape(fields)
    outline = Outline(width, shape, blocks={"model.layers": shape.layers})
    outline.add_matrix("model.embed_tokens", fields.size("vocab_size"), width)
    for index in range(shape.layers):
        path = f"model.layers.{index}"
        _attention(outline, f"{path}.self_attn", fields)
        _feed_forward(outline, f"{path}.mlp", fields)
        outline.add_norm(f"{path}.input_layernorm", width)
        outline.add_norm(f"{path}.post_attention_layernorm", width)
        if kind in ("gemma2", "gemma3_text"):
            outline.add_norm(f"{path}.pre_feedforward_layernorm", width)
            outline.add_norm(f"{path}.post_feedforward_layernorm", width)
    outline.add_norm("model.norm", width)
    return outline


def _attention(outline: Outline, path: str, fields: Fields) -> None:
    kind, width, shape = fields.model_type, outline.width, outline.attention
    queries = shape.heads * shape.head_size
    keys = shape.key_value_heads * shape.head_size
    if kind == "phi3":
        outline.add_linear(f"{path}.o_proj", queries, width, bias=False)
        outline.add_linear(f"{path}.qkv_proj", width, queries + 2 * keys, bias=False)
        return
    has_bias = kind not in _WITHOUT_BIASES and fields.flag("attention_bias")
    for name, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        outline.add_linear(f"{path}.{name}", width, outputs, bias=has_bias or kind == "qwen2")
    outline.add_linear(f"{path}.o_proj", queries, width, bias=has_bias and kind != "qwen2")
    if kind in ("qwen3", "gemma3_text"):
        outline.add_norm(f"{path}.q_norm", shape.head_size)
        outline.add_norm(f"{path}.k_norm", shape.head_size)


def _feed_forward(outline: Outline, path: str, fields: Fields) -> None:
    width, inner = outline.width, fields.size("intermediate_size")
    if fields.model_type == "phi3":
        outline.add_linear(f"{path}.gate_up_proj", width, 2 * inner, bias=False)
        outline.add_linear(f"{path}.down_proj", inner, width, bias=False)
        return
    has_bias = fields.model_type == "llama" and fields.flag("mlp_bias")
    outline.add_linear(f"{path}.gate_proj", width, inner, bias=has_bias)
    outline.add_linear(f"{path}.up_proj", width, inner, bias=has_bias)
    outline.add_linear(f"{path}.down_proj", inner, width, bias=has_bias)
