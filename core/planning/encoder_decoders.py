"""The outlines of encoder-decoders with their language head."""

from core.planning.fields import Fields
from core.planning.outline import AttentionShape, Outline

_EXTRA_POSITIONS = 2
"""BART's position embeddings begin with two unused rows."""


def encoder_decoder(fields: Fields) -> Outline:
    """Return an encoder-decoder that generates a target for a source."""
    return _t5(fields) if fields.model_type == "t5" else _bart(fields)


def _t5(fields: Fields) -> Outline:
    width, heads, head_size = fields.size("d_model"), fields.size("num_heads"), fields.size("d_kv")
    layers = fields.size("num_layers")
    decoder_layers = fields.size_or_none("num_decoder_layers") or layers
    shape = AttentionShape(decoder_layers, heads, heads, head_size)
    blocks = {"encoder.block": layers, "decoder.block": decoder_layers}
    outline = Outline(width, shape, blocks=blocks)
    vocabulary = fields.size("vocab_size")
    outline.add_matrix("shared", vocabulary, width)
    for stack, count in (("encoder", layers), ("decoder", decoder_layers)):
        outline.add_matrix(f"{stack}.embed_tokens", vocabulary, width, like="shared.weight")
        for index in range(count):
            path = f"{stack}.block.{index}.layer"
            _t5_attention(outline, f"{path}.0.SelfAttention", heads * head_size)
            if index == 0:
                name = f"{path}.0.SelfAttention.relative_attention_bias"
                outline.add_matrix(name, fields.size("relative_attention_num_buckets"), heads)
            outline.add_norm(f"{path}.0.layer_norm", width)
            if stack == "decoder":
                _t5_attention(outline, f"{path}.1.EncDecAttention", heads * head_size)
                outline.add_norm(f"{path}.1.layer_norm", width)
            last = 1 if stack == "encoder" else 2
            _t5_feed_forward(outline, f"{path}.{last}.DenseReluDense", fields)
            outline.add_norm(f"{path}.{last}.layer_norm", width)
        outline.add_norm(f"{stack}.final_layer_norm", width)
    # transformers ties it in every T5, even if the config says otherwise
    outline.add_matrix("lm_head", vocabulary, width, like="shared.weight")
    return outline


def _t5_attention(outline: Outline, path: str, inner: int) -> None:
    for name in ("q", "k", "v"):
        outline.add_linear(f"{path}.{name}", outline.width, inner, bias=False)
    outline.add_linear(f"{path}.o", inner, outline.width, bias=False)


def _t5_feed_forward(outline: Outline, path: str, fields: Fields) -> None:
    inner = fields.size("d_ff")
    is_gated = fields.text("feed_forward_proj").startswith("gated-")
    for name in ("wi_0", "wi_1") if is_gated else ("wi",):
        outline.add_linear(f"{path}.{name}", outline.width, inner, bias=False)
    outline.add_linear(f"{path}.wo", inner, outline.width, bias=False)


def _bart(fields: Fields) -> Outline:
    width, heads = fields.size("d_model"), fields.size("decoder_attention_heads")
    decoder_layers = fields.size("decoder_layers")
    shape = AttentionShape(decoder_layers, heads, heads, width // heads)
    stacks = {"encoder": fields.size("encoder_layers"), "decoder": decoder_layers}
    blocks = {f"model.{stack}.layers": layers for stack, layers in stacks.items()}
    outline = Outline(width, shape, blocks=blocks)
    vocabulary = fields.size("vocab_size")
    positions = fields.size("max_position_embeddings") + _EXTRA_POSITIONS
    like = "model.shared.weight" if fields.flag("tie_word_embeddings") else None
    outline.add_matrix("model.shared", vocabulary, width)
    for stack, layers in stacks.items():
        path = f"model.{stack}"
        outline.add_matrix(f"{path}.embed_tokens", vocabulary, width, like=like)
        outline.add_matrix(f"{path}.embed_positions", positions, width)
        for index in range(layers):
            inner = fields.size(f"{stack}_ffn_dim")
            _bart_block(outline, f"{path}.layers.{index}", inner, crosses=stack == "decoder")
        outline.add_norm(f"{path}.layernorm_embedding", width, bias=True)
    outline.add_matrix("lm_head", vocabulary, width, like=like)
    return outline


def _bart_block(outline: Outline, path: str, inner: int, *, crosses: bool) -> None:
    width = outline.width
    for attention in ("self_attn", "encoder_attn") if crosses else ("self_attn",):
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            outline.add_linear(f"{path}.{attention}.{name}", width, width, bias=True)
        outline.add_norm(f"{path}.{attention}_layer_norm", width, bias=True)
    outline.add_linear(f"{path}.fc1", width, inner, bias=True)
    outline.add_linear(f"{path}.fc2", inner, width, bias=True)
    outline.add_norm(f"{path}.final_layer_norm", width, bias=True)
