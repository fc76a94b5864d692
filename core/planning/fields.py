"""The fields of a `config.json` that determine the shape of a model, with their defaults.

A config may omit fields; its class in transformers then has a default. A test compares the counts
that follow from these defaults with the classes.
"""

from collections.abc import Mapping
from typing import Any

from core.errors import InvalidRequest

_LLAMA: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}
_QWEN = _LLAMA | {
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
}
_GEMMA = _LLAMA | {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
}
_BERT: dict[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA | {"intermediate_size": 14_336, "num_key_value_heads": 8},
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
    "gemma2": _GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _GEMMA | {"vocab_size": 262_208},
    "phi3": _LLAMA | {"vocab_size": 32_064, "hidden_size": 3072, "intermediate_size": 8192},
    "gpt2": {
        "vocab_size": 50_257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "tie_word_embeddings": True,
    },
    "t5": {
        "vocab_size": 32_128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": None,
        "num_heads": 8,
        "relative_attention_num_buckets": 32,
        "feed_forward_proj": "relu",
        "dropout_rate": 0.1,
    },
    "bart": {
        "vocab_size": 50_265,
        "max_position_embeddings": 1024,
        "d_model": 1024,
        "encoder_layers": 12,
        "encoder_ffn_dim": 4096,
        "encoder_attention_heads": 16,
        "decoder_layers": 12,
        "decoder_ffn_dim": 4096,
        "decoder_attention_heads": 16,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
    },
    "bert": _BERT,
    "modernbert": {
        "vocab_size": 50_368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "attention_bias": False,
        "mlp_bias": False,
        "norm_bias": False,
        "classifier_bias": False,
        "attention_dropout": 0.0,
    },
}
"""By `model_type`; for every family of the catalog, which a test requires."""


class Fields:
    """The fields of one config. Other values than the expected types are InvalidRequest."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """`config` has a `model_type` of the catalog."""
        self.model_type: str = config["model_type"]
        self._config = config
        self._defaults = DEFAULTS[self.model_type]

    def size(self, name: str) -> int:
        """Return a field that has to be a positive integer."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._invalid(name, value, "a positive integer")
        return value

    def size_or_none(self, name: str) -> int | None:
        """Return a positive integer, or None if the field is null or unknown to the class."""
        return None if self._value(name) is None else self.size(name)

    def flag(self, name: str) -> bool:
        value = self._value(name)
        return bool(value)

    def share(self, name: str) -> float:
        """Return a number such as a dropout; 0 for null."""
        value = self._value(name) or 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._invalid(name, value, "a number")
        return float(value)

    def text(self, name: str) -> str:
        return str(self._value(name))

    def _value(self, name: str) -> Any:
        return self._config.get(name, self._defaults.get(name))

    def _invalid(self, name: str, value: object, wanted: str) -> InvalidRequest:
        return InvalidRequest(
            f"The config.json of the base model has {name} = {value!r}, which is not {wanted}. "
            "Save the base again with save_pretrained.",
            param="model",
            code="unsupported_model",
        )
