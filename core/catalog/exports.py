"""Which formats a tuned model can be exported in, and why others are impossible."""

from collections.abc import Mapping, Sequence
from typing import get_args

from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.spec.export import ExportForm, ExportFormat, ExportOptions
from core.spec.objective import Task
from core.spec.strategy import LowRankSpec, StrategySpec

FORMS: Mapping[ExportFormat, Sequence[ExportForm]] = {
    "merged": ("merged",),
    "nf4": ("merged",),
    "int8": ("merged",),
    "gguf": ("merged",),
    "adapter-gguf": ("adapter",),
    "vllm": ("merged", "adapter"),
    "huggingface": ("merged", "adapter"),
}
"""The forms of each format, the default first."""

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's `--max-lora-rank`."""


def require_exportable(options: ExportOptions, strategy: StrategySpec, task: Task) -> None:
    """Raise InvalidRequest with the reason and the possible formats if a model cannot be exported.

    Families that llama.cpp does not know are refused by `core.exports.gguf`.
    """
    reason = _reason(options, strategy, task)
    if reason is None:
        return
    possible = [_name(each) for each in _all() if _reason(each, strategy, task) is None]
    hint = (
        f"Its formats are {', '.join(possible)}."
        if possible
        else ("It has no export format; GET /v1/fine_tuning/jobs/{id}/adapter returns its bundle.")
    )
    raise InvalidRequest(
        f"This model cannot be exported as {_name(options)}: {reason}. {hint}",
        param="format",
        code="export_not_possible",
    )


def form_of(format_: ExportFormat, form: ExportForm | None, strategy: StrategySpec) -> ExportForm:
    """Return the requested form, or the default: that of an adapter if it cannot be merged."""
    if form is not None:
        return form
    forms = FORMS[format_]
    is_stuck = STRATEGIES[strategy.type].not_mergeable is not None
    return "adapter" if is_stuck and "adapter" in forms else forms[0]


def vllm_rank(strategy: LowRankSpec) -> int:
    """Return the smallest `--max-lora-rank` with which vLLM loads the adapter."""
    largest = max(strategy.rank, *strategy.rank_pattern.values(), 1)
    return next(rank for rank in VLLM_RANKS if rank >= largest)


def _reason(options: ExportOptions, strategy: StrategySpec, task: Task) -> str | None:
    facts = STRATEGIES[strategy.type]
    if options.form not in FORMS[options.format]:
        return f"the format {options.format} has no form {options.form!r}"
    if options.form == "adapter" and facts.full_model:
        return "every weight of it was trained, so it has no adapter"
    if options.form == "merged" and facts.not_mergeable is not None:
        return f"its strategy {strategy.type} {facts.not_mergeable}, and cannot be merged"
    if options.form == "adapter" and facts.library != "peft":
        return f"PEFT does not know the strategy {strategy.type}"
    if options.format in ("gguf", "adapter-gguf") and task != "generation":
        return f"llama.cpp does not run models for the task {task}"
    if options.format == "adapter-gguf":
        return _not_plain("llama.cpp", strategy)
    if options.format == "vllm":
        return _not_for_vllm(options, strategy, task)
    return None


def _not_plain(program: str, strategy: StrategySpec) -> str | None:
    """Return why a program that knows only matrices beside linear layers cannot run an adapter."""
    if not isinstance(strategy, LowRankSpec):
        return f"{program} runs only LoRA adapters, not those of the strategy {strategy.type}"
    if strategy.use_dora:
        return f"{program} does not run adapters with use_dora"
    if strategy.modules_to_save:
        return f"{program} does not run adapters with modules_to_save"
    return None


def _not_for_vllm(options: ExportOptions, strategy: StrategySpec, task: Task) -> str | None:
    if task == "seq2seq":
        return "vLLM does not run encoder-decoders of this kind"
    if options.form == "merged":
        return None
    if task != "generation":
        return "vLLM runs LoRA adapters for generation only"
    if (reason := _not_plain("vLLM", strategy)) is not None:
        return reason
    assert isinstance(strategy, LowRankSpec)
    largest = max(strategy.rank, *strategy.rank_pattern.values(), 1)
    if largest > VLLM_RANKS[-1]:
        return f"its rank is {largest}, and vLLM's limit is {VLLM_RANKS[-1]}"
    return None


def _all() -> list[ExportOptions]:
    return [
        ExportOptions(format=format_, form=form)
        for format_ in get_args(ExportFormat)
        for form in FORMS[format_]
    ]


def _name(options: ExportOptions) -> str:
    if len(FORMS[options.format]) > 1:
        return f"{options.format} ({options.form})"
    return options.format
