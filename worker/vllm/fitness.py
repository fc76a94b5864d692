"""What vLLM can run: LoRA adapters with options that its loader supports, and most parameters."""

from core.artifacts.manifest import Manifest
from core.engine.policy.request import Request
from core.spec.engine_protocol import NotServedHere
from core.spec.serving import ServingSpec
from core.spec.strategy import LowRankSpec


def require_fit(manifest: Manifest, serving: ServingSpec) -> None:
    """Raise NotServedHere `unsupported_adapter` for a model that vLLM cannot run on its base."""
    strategy = manifest.strategy
    if serving.form == "merged":
        raise _unfit("a merged model")
    if manifest.task != "generation":
        raise _unfit(f"a model for the task {manifest.task}")
    if not isinstance(strategy, LowRankSpec):
        raise _unfit(f"a model trained with the strategy {strategy.type}")
    if strategy.use_dora:
        raise _unfit("an adapter with use_dora")
    if strategy.modules_to_save:
        raise _unfit(f"an adapter with modules_to_save ({', '.join(strategy.modules_to_save)})")


def require_served(request: Request) -> None:
    """Raise NotServedHere for parameters that vLLM cannot combine.

    Once a structured output is complete, it has no token for an answer that must not end yet.
    """
    if request.grammar is not None and request.sampling.min_tokens:
        raise NotServedHere(
            "This engine is a bridge to a vLLM server, which cannot combine min_tokens with "
            "structured output. Remove min_tokens, or start a Tunesmith engine (python -m "
            "worker.engine).",
            param="min_tokens",
            code="unsupported_parameter",
        )


def _unfit(what: str) -> NotServedHere:
    return NotServedHere(
        f"This engine is a bridge to a vLLM server, which cannot run {what}. It runs lora and "
        "qlora adapters for generation, also with use_rslora and patterns, but without use_dora "
        "and modules_to_save. Train such an adapter, or start a Tunesmith engine (python -m "
        "worker.engine).",
        param="model",
        code="unsupported_adapter",
    )
