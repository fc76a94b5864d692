"""What GGUF can hold: the families, and the adapters that are matrices beside linear layers."""

from collections.abc import Mapping
from typing import Any

from core.errors import InvalidRequest

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")
"""`model_type` of the configs. llama.cpp knows more; these are tested against transformers."""

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
