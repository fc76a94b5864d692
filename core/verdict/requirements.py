"""Whether a model meets the requirements of its job."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.spec.evaluation import LOSS_METRICS, Requirement
from core.spec.verdict import HeldOut, LossFigures, Metric, RequirementOutcome


@dataclass(frozen=True)
class _Measured:
    base: float | None
    tuned: float | None
    interval: tuple[float, float] | None = None


def outcomes(
    requirements: Sequence[Requirement],
    held_out: HeldOut,
    metrics: Sequence[Metric],
    missing: Sequence[str],
) -> tuple[RequirementOutcome, ...]:
    """Return whether each requirement is met; `met` is None for one that was not measured.

    Differences are compared as they are, not their intervals, which the message states.
    """
    return tuple(_outcome(each, held_out, metrics, missing) for each in requirements)


def _outcome(
    requirement: Requirement,
    held_out: HeldOut,
    metrics: Sequence[Metric],
    missing: Sequence[str],
) -> RequirementOutcome:
    name = requirement.metric
    found = _measured(name, held_out, metrics)
    by = requirement.better_than_base_by
    if found.tuned is None or (by is not None and found.base is None):
        of = "" if found.tuned is None else " of the base"
        why = f" ({' '.join(missing)})" if missing else ""
        message = f"The requirement on {name} could not be checked: {name}{of} was not measured"
        return RequirementOutcome(requirement=requirement, met=None, message=f"{message}{why}.")
    failed = []
    if requirement.at_least is not None and found.tuned < requirement.at_least:
        failed.append(f"at least {requirement.at_least:g} is required")
    if requirement.at_most is not None and found.tuned > requirement.at_most:
        failed.append(f"at most {requirement.at_most:g} is allowed")
    figures = f"{name} is {found.tuned:.4g}"
    if by is not None and found.base is not None:
        gain = found.tuned - found.base
        gain = -gain if name in LOSS_METRICS else gain
        figures += f", {abs(gain):.4g} {'better' if gain >= 0 else 'worse'} than that of the base "
        figures += f"({found.base:.4g}{_interval(found)})"
        if gain < by:
            failed.append(f"better by at least {by:g} is required")
    message = f"{figures}; {'; '.join(failed) or 'the requirement is met'}."
    return RequirementOutcome(requirement=requirement, met=not failed, message=message)


def _interval(found: _Measured) -> str:
    if found.interval is None:
        return ""
    low, high = found.interval
    return f"; 95 % interval of the difference {low:+.4g} to {high:+.4g}"


def _measured(name: str, held_out: HeldOut, metrics: Sequence[Metric]) -> _Measured:
    for metric in metrics:
        if metric.name == name:
            return _Measured(metric.base, metric.tuned, metric.interval)
    return _Measured(_figure(name, held_out.base), _figure(name, held_out.tuned))


def _figure(name: str, figures: LossFigures | None) -> float | None:
    if figures is None:
        return None
    match name:
        case "loss":
            return figures.loss
        case "perplexity":
            return figures.perplexity
        case "token_accuracy":
            return figures.accuracy
        case _:
            return None
