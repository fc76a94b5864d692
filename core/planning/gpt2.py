"""The outline of GPT-2."""

from core.planning.fields import Fields
from core.planning.outline import AttentionShape, Outline


def gpt2(fields: Fields) -> Outline:
    """Return a GPT-2 without its head; its linear layers are stored transposed."""
    width, layers = fields.size("n_embd"), fields.size("n_layer")
    heads = fields.size("n_head")
    inner = fields.size_or_none("n_inner") or 4 * width
    shape = AttentionShape(layers, heads, heads, width // heads)
    outline = Outline(width, shape, blocks={"transformer.h": layers})
    outline.add_matrix("transformer.wte", fields.size("vocab_size"), width)
    outline.add_matrix("transformer.wpe", fields.size("n_positions"), width)
    for index in range(layers):
        path = f"transformer.h.{index}"
        outline.add_norm(f"{path}.ln_1", width, bias=True)
        for name, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, inner),
            ("mlp.c_proj", inner, width),
        ):
            outline.add_linear(f"{path}.{name}", inputs, outputs, bias=True, transposed=True)
        outline.add_norm(f"{path}.ln_2", width, bias=True)
    outline.add_norm("transformer.ln_f", width, bias=True)
    return outline
