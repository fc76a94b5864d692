"""Jobs on shapes that no figure of the planner was chosen on: other widths, depths, rows, ranks."""

from itertools import product
from typing import Any

from core.spec.precision import NumberFormat
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)
from tests.pretend_cuda.cases import Case, is_counted
from tests.pretend_cuda.shapes import with_layers

LLAMA_1B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
}
NEMO_12B: dict[str, Any] = {
    "model_type": "mistral",
    "vocab_size": 131_072,
    "hidden_size": 5120,
    "intermediate_size": 14_336,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "sliding_window": None,
    "max_position_embeddings": 131_072,
}
QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "tie_word_embeddings": True,
}
QWEN2_05B: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}
GEMMA2_9B: dict[str, Any] = {
    "model_type": "gemma2",
    "vocab_size": 256_000,
    "hidden_size": 3584,
    "intermediate_size": 14_336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "max_position_embeddings": 8192,
}
GEMMA3_4B: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262_208,
    "hidden_size": 2560,
    "intermediate_size": 10_240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 1024,
    "max_position_embeddings": 131_072,
}
PHI3_MEDIUM: dict[str, Any] = {
    "model_type": "phi3",
    "vocab_size": 32_064,
    "hidden_size": 5120,
    "intermediate_size": 17_920,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "sliding_window": None,
    "max_position_embeddings": 4096,
}
GPT2_XL: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": 50_257,
    "n_embd": 1600,
    "n_layer": 48,
    "n_head": 25,
    "n_positions": 1024,
}
BERT_LARGE: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 30_522,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 512,
}
MINILM: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 30_522,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
}
MODERNBERT_LARGE: dict[str, Any] = {
    "model_type": "modernbert",
    "vocab_size": 50_368,
    "hidden_size": 1024,
    "intermediate_size": 2624,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "max_position_embeddings": 8192,
}
T5_3B: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 32_128,
    "d_model": 1024,
    "d_kv": 128,
    "d_ff": 16_384,
    "num_layers": 24,
    "num_heads": 32,
    "dropout_rate": 0.1,
    "feed_forward_proj": "relu",
    "decoder_start_token_id": 0,
}
FLAN_T5_SMALL: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 32_128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "dropout_rate": 0.1,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
BART_BASE: dict[str, Any] = {
    "model_type": "bart",
    "vocab_size": 50_265,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "max_position_embeddings": 1024,
    "dropout": 0.1,
}

BASES: dict[str, dict[str, Any]] = {
    name.lower(): config
    for name, config in dict(globals()).items()
    if isinstance(config, dict) and "model_type" in config
}
STRATEGIES: dict[str, StrategySpec] = {
    "lora": LoraSpec(rank=64, alpha=64),
    "lora, attention": LoraSpec(rank=8, alpha=16, target_modules="attention"),
    "qlora": QloraSpec(rank=8, alpha=16),
    "full": FullSpec(),
    "bottleneck": BottleneckSpec(reduction_factor=4),
    "prefix": PrefixSpec(virtual_tokens=64),
    "prompt": PromptSpec(virtual_tokens=64),
    "ia3": Ia3Spec(),
}
ROWS: dict[str, tuple[tuple[int, ...], float]] = {
    "many short": ((96,) * 32, 0.3),
    "few long": ((1000, 1000, 1000), 0.05),
}
"""Lengths, and the share of tokens that have a loss."""
LAYERS = 5


def _case(
    base: str, strategy: str, rows: str, checkpointed: bool, precision: NumberFormat = "bf16"
) -> Case:
    lengths, labelled = ROWS[rows]
    config = BASES[base]
    longest = config.get("max_position_embeddings") or config.get("n_positions") or 10_000
    spec = STRATEGIES[strategy]
    room = longest - getattr(spec, "virtual_tokens", 0)
    return Case(
        with_layers(config, LAYERS),
        spec,
        lengths=tuple(min(length, room) for length in lengths),
        checkpointed=checkpointed,
        precision=precision,
        labelled=labelled,
    )


UNSEEN: dict[str, Case] = {
    f"{base} {strategy}, {rows}{', recomputed' if checkpointed else ''}": _case(
        base, strategy, rows, checkpointed
    )
    for base, strategy, rows, checkpointed in product(BASES, STRATEGIES, ROWS, (False, True))
    if is_counted(BASES[base], strategy, checkpointed)
}
