"""What GGUF can hold: the families, and the adapters that are matrices beside linear layers."""

from collections.abc import Mapping
from typing import Any

from core.errors import InvalidRequest

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")
"""`model_type` of the configs. llama.cpp knows more; these are tested against transformers."""

_WINDOWS_OF = {"gemma2": 2, "gemma3_text": 6}
"""Every nth layer of these has full attention, the others a window. It is in llama.cpp's code."""

_SIZES_OF_27B = ((46, 4608), (62, 5376))
"""Layers and width of the models whose attention llama.cpp scales by width and heads."""

_MERGED = "Export a merged GGUF instead, which contains all that was trained"
_NOT_IN_GGUF = {
    "use_dora": "DoRA, whose magnitudes llama.cpp does not know",
    "modules_to_save": "whole modules beside LoRA",
    "trainable_token_indices": "rows of the embedding beside LoRA",
    "lora_bias": "biases beside LoRA",
    "target_parameters": "LoRA on the weights of experts",
    "layer_replication": "repeated layers",
    "alora_invocation_tokens": "LoRA that begins at a token",
}


def require_family(config: Mapping[str, Any]) -> None:
    """Raise InvalidRequest unless a model with this `config.json` can be written as GGUF."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise _unsupported(
            f"A model of the family {family} cannot be written as GGUF; the families are "
            f"{', '.join(FAMILIES)}"
        )
    architecture = (config.get("architectures") or [""])[0]
    if not architecture.endswith("ForCausalLM"):
        raise _unsupported(f"A {architecture} cannot be written as GGUF: it does not generate text")
    if family in _WINDOWS_OF:
        _require_published_gemma(config, _WINDOWS_OF[family])


def _require_published_gemma(config: Mapping[str, Any], every: int) -> None:
    """Raise InvalidRequest for a Gemma that llama.cpp would take for a published one."""
    layers, width = config["num_hidden_layers"], config["hidden_size"]
    is_27b = (layers, width) in _SIZES_OF_27B
    scale = width // config["num_attention_heads"] if is_27b else config["head_dim"]
    if config.get("query_pre_attn_scalar", scale) != scale:
        raise _unsupported(
            f"llama.cpp scales the attention of this Gemma by {scale}, not by its "
            f"query_pre_attn_scalar of {config['query_pre_attn_scalar']}"
        )
    full = [index for index, kind in enumerate(_kinds(config, every)) if kind == "full_attention"]
    if full != list(range(every - 1, layers, every)):
        raise _unsupported(
            f"llama.cpp gives every layer of a Gemma but each {every}th a window, this one others"
        )


def _kinds(config: Mapping[str, Any], every: int) -> list[str]:
    kinds = ("sliding_attention", "full_attention")
    published = [kinds[index % every == every - 1] for index in range(config["num_hidden_layers"])]
    return config.get("layer_types") or published


def require_adapter(settings: Mapping[str, Any]) -> None:
    """Raise InvalidRequest unless an adapter with this `adapter_config.json` fits into GGUF."""
    kind = str(settings.get("peft_type"))
    if kind != "LORA":
        raise _unsupported(f"A GGUF adapter holds LoRA only, not {kind}", hint=_HINTS.get(kind))
    for key, what in _NOT_IN_GGUF.items():
        if settings.get(key):
            raise _unsupported(f"A GGUF adapter cannot hold {what}", hint=_MERGED)
    if settings.get("bias", "none") != "none":
        raise _unsupported("A GGUF adapter cannot hold biases", hint=_MERGED)


_NO_FORM = "llama.cpp has no form for virtual tokens; serve this model with Tunesmith"
_HINTS = {"IA3": _MERGED, "PREFIX_TUNING": _NO_FORM, "PROMPT_TUNING": _NO_FORM}


def _unsupported(message: str, hint: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"{message}. {hint}." if hint else f"{message}.", code="gguf_unsupported")
