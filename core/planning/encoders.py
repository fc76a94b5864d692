"""The outlines of encoders that classify."""

from core.planning.fields import Fields
from core.planning.outline import AttentionShape, Outline


def encoder(fields: Fields, labels: int) -> Outline:
    """Return an encoder with a head for `labels` labels."""
    outline = _bert(fields) if fields.model_type == "bert" else _modernbert(fields)
    outline.add_linear("classifier", outline.width, labels, bias=True)
    return outline


def _outline(fields: Fields, stack: str) -> Outline:
    width, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    layers = fields.size("num_hidden_layers")
    shape = AttentionShape(layers, heads, heads, width // heads)
    return Outline(width, shape, blocks={stack: layers})


def _bert(fields: Fields) -> Outline:
    outline = _outline(fields, "bert.encoder.layer")
    width, inner = outline.width, fields.size("intermediate_size")
    for name, rows in (
        ("word", fields.size("vocab_size")),
        ("position", fields.size("max_position_embeddings")),
        ("token_type", fields.size("type_vocab_size")),
    ):
        outline.add_matrix(f"bert.embeddings.{name}_embeddings", rows, width)
    outline.add_norm("bert.embeddings.LayerNorm", width, bias=True)
    for index in range(outline.attention.layers):
        path = f"bert.encoder.layer.{index}"
        for name in ("query", "key", "value"):
            outline.add_linear(f"{path}.attention.self.{name}", width, width, bias=True)
        outline.add_linear(f"{path}.attention.output.dense", width, width, bias=True)
        outline.add_norm(f"{path}.attention.output.LayerNorm", width, bias=True)
        outline.add_linear(f"{path}.intermediate.dense", width, inner, bias=True)
        outline.add_linear(f"{path}.output.dense", inner, width, bias=True)
        outline.add_norm(f"{path}.output.LayerNorm", width, bias=True)
    outline.add_linear("bert.pooler.dense", width, width, bias=True)
    return outline


def _modernbert(fields: Fields) -> Outline:
    outline = _outline(fields, "model.layers")
    width, inner = outline.width, fields.size("intermediate_size")
    norm_bias = fields.flag("norm_bias")
    attention_bias, mlp_bias = fields.flag("attention_bias"), fields.flag("mlp_bias")
    outline.add_matrix("model.embeddings.tok_embeddings", fields.size("vocab_size"), width)
    outline.add_norm("model.embeddings.norm", width, bias=norm_bias)
    for index in range(outline.attention.layers):
        path = f"model.layers.{index}"
        if index:  # the first block has an identity there
            outline.add_norm(f"{path}.attn_norm", width, bias=norm_bias)
        outline.add_linear(f"{path}.attn.Wqkv", width, 3 * width, bias=attention_bias)
        outline.add_linear(f"{path}.attn.Wo", width, width, bias=attention_bias)
        outline.add_norm(f"{path}.mlp_norm", width, bias=norm_bias)
        outline.add_linear(f"{path}.mlp.Wi", width, 2 * inner, bias=mlp_bias)
        outline.add_linear(f"{path}.mlp.Wo", inner, width, bias=mlp_bias)
    outline.add_norm("model.final_norm", width, bias=norm_bias)
    outline.add_linear("head.dense", width, width, bias=fields.flag("classifier_bias"))
    outline.add_norm("head.norm", width, bias=norm_bias)
    return outline
