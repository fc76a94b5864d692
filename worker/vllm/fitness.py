"""Which tuned models vLLM can run: LoRA, and of that what its loader takes."""

from core.artifacts.manifest import Manifest
from core.spec.engine_protocol import NotServedHere
from core.spec.serving import ServingSpec
from core.spec.strategy import LowRankSpec


def require_fit(manifest: Manifest, serving: ServingSpec) -> None:
    """Raise NotServedHere `unsupported_adapter` for what vLLM cannot put on its base."""
    strategy = manifest.strategy
    if serving.form == "merged":
        raise _unfit("a model that is served merged into weights of its own")
    if manifest.task != "generation":
        raise _unfit(f"a model for the task {manifest.task}")
    if not isinstance(strategy, LowRankSpec):
        raise _unfit(f"a model that was tuned with the strategy {strategy.type}")
    if strategy.use_dora:
        raise _unfit("an adapter with use_dora")
    if strategy.modules_to_save:
        raise _unfit(f"an adapter with modules_to_save ({', '.join(strategy.modules_to_save)})")


def _unfit(what: str) -> NotServedHere:
    return NotServedHere(
        f"This engine drives a vLLM server, which cannot run {what}. It takes lora and qlora "
        "adapters that write text, with use_rslora and patterns if need be, without use_dora and "
        "modules_to_save, served as adapters. Tune such a one, or start an engine of ours (python "
        "-m worker.engine).",
        param="model",
        code="unsupported_adapter",
    )
