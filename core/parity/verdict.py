"""Compares the engine's log-probabilities of a job's rows with those of training."""

import math
from collections.abc import Sequence
from itertools import chain

from core.parity.asking import Replies
from core.parity.rounding import Rounding, Share, is_coarser
from core.spec.generation import TokenPrompt
from core.spec.parity import (
    Ablation,
    NumberFormat,
    Parity,
    ParityReference,
    ReplayedRow,
    ReplayedText,
)

MEAN_FACTOR = 2.0
FEW_FIGURES = 3.0
"""Divided by the root of their number: the statistical error of a mean of few values."""
MAX_FACTOR = 3.0
FLOOR_MEAN_NATS = 1e-4
FLOOR_MAX_NATS = 1e-3
"""Negligible differences, above the rounding of fp32."""

LARGE_COST_NATS = 0.1
"""The largest mean difference accepted from a coarser number format: 10 % of each probability."""

IGNORED_SHARE = 0.5
UNEXPLAINED_SHARE = 0.1
"""The share of a difference that a missing module may leave unexplained. Rounding is larger for a
base than for a tuned model, which gives the rows higher probabilities."""
OTHER_SHARE = 0.1
ERRORS = 4.0
"""The number of standard errors by which a share must differ from 0."""


def judge(reference: ParityReference, replies: Replies) -> Parity:
    """Judge whether the engine serves the model as trained; the result names the difference."""
    trained, served = reference.precision, replies.engine_precision or reference.precision
    found = Parity(
        status="passed",
        rows=len(reference.rows),
        token_rows=sum(_is_asked_by_tokens(row) for row in reference.rows),
        training_precision=trained,
        engine_precision=replies.engine_precision,
        quantization_gap_nats=reference.quantization_gap_nats,
    )
    for row, reply in zip(reference.rows, replies.rows, strict=True):
        if isinstance(row, ReplayedRow) and reply.prompt_ids != row.prompt_ids:
            return _failed(found, "template", _other_tokens(row, reply.prompt_ids))
    said = list(chain.from_iterable(reply.figures for reply in replies.rows))
    if not said:
        return Parity(status="unchecked", reason="the rows have no labelled tokens")
    if not reference.repeats:
        return Parity(status="unchecked", reason="training did not measure its rounding")
    if not all(map(math.isfinite, said)):
        return _failed(found, "numbers", "The engine's log-probabilities are not finite numbers.")
    rounding = Rounding.measured(reference, served)
    found = _with_figures(found, reference, rounding, said)
    figures = _figures(found, reference, replies)
    if ignored := _ignored(reference.ablations, rounding, said, found):
        return _failed(found, "module", f"{_words_of(ignored)}. {figures}")
    holds = _is_within(found)
    if is_coarser(served, trained) and not (holds and _mean(found) <= LARGE_COST_NATS):
        return _failed(found, "precision", f"{_cost(found, trained, served)} {figures}")
    if other := _other_adapter(reference, rounding, said):
        return _failed(found, "adapter", f"{other} {figures}")
    if holds:
        return found
    if unsaid := _unsaid_format(reference, found, served):
        return _failed(found, "precision", f"{unsaid} {figures}")
    return _failed(found, "numbers", figures)


def _with_figures(
    found: Parity, reference: ParityReference, rounding: Rounding, said: Sequence[float]
) -> Parity:
    differences = [abs(a - b) for a, b in zip(rounding.figures, said, strict=True)]
    texts = isinstance(reference.rows[0], ReplayedText)
    independent = len(reference.rows) if texts else len(differences)
    factor = MEAN_FACTOR + FEW_FIGURES / math.sqrt(independent)
    full = _full(reference)
    share = rounding.share_of(full.figures, said) if full else None
    return found.model_copy(
        update={
            "tokens": len(differences),
            "max_difference_nats": max(differences),
            "mean_difference_nats": sum(differences) / len(differences),
            "max_rounding_nats": rounding.max,
            "mean_rounding_nats": rounding.mean,
            "max_allowed_nats": FLOOR_MAX_NATS + MAX_FACTOR * rounding.max,
            "mean_allowed_nats": FLOOR_MEAN_NATS + factor * rounding.mean,
            "adapter_effect_nats": _mean_distance(full.figures, rounding.figures) if full else None,
            "adapter_share": 1 - share.value if share else None,
        }
    )


def _is_within(found: Parity) -> bool:
    assert found.max_difference_nats is not None and found.max_allowed_nats is not None
    assert found.mean_allowed_nats is not None
    return (
        found.max_difference_nats <= found.max_allowed_nats
        and _mean(found) <= found.mean_allowed_nats
    )


def _mean(found: Parity) -> float:
    assert found.mean_difference_nats is not None
    return found.mean_difference_nats


def _mean_distance(one: Sequence[float], other: Sequence[float]) -> float:
    pairs = list(zip(one, other, strict=False))
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def _is_asked_by_tokens(row: ReplayedRow | ReplayedText) -> bool:
    return isinstance(row, ReplayedRow) and isinstance(row.prompt, TokenPrompt)


def _failed(found: Parity, differs: str, reason: str) -> Parity:
    return found.model_copy(update={"status": "failed", "differs": differs, "reason": reason})


def _other_tokens(row: ReplayedRow, ids: tuple[int, ...]) -> str:
    pairs = zip(row.prompt_ids, ids, strict=False)
    unequal = next((index for index, (a, b) in enumerate(pairs) if a != b), None)
    first = min(len(row.prompt_ids), len(ids)) if unequal is None else unequal
    return (
        f"The engine's chat template or tokenizer differs from training's: the prompt of line "
        f"{row.line} has {len(ids)} tokens in the engine and {len(row.prompt_ids)} in training, "
        f"and they differ from token {first} on."
    )


def _ignored(
    ablations: Sequence[Ablation], rounding: Rounding, said: Sequence[float], found: Parity
) -> Ablation | None:
    """Return the modules whose absence explains nearly all of the difference, if any."""
    assert found.mean_allowed_nats is not None
    near = max(found.mean_allowed_nats, UNEXPLAINED_SHARE * _mean(found))
    fitting = []
    for ablation in ablations:
        left = _mean_distance(ablation.figures, said)
        share = rounding.share_of(ablation.figures, said)
        if left <= near and share and share.is_beyond(IGNORED_SHARE, ERRORS):
            fitting.append((left, ablation))
    return min(fitting, key=lambda each: each[0])[1] if fitting else None


def _words_of(ignored: Ablation) -> str:
    modules, pronoun = ("modules", "them") if ignored.count > 1 else ("module", "it")
    return (
        f"The engine ignores {ignored.modules} ({ignored.count} trained {modules}): its "
        f"log-probabilities match the model without {pronoun}"
    )


def _full(reference: ParityReference) -> Ablation | None:
    return next((each for each in reference.ablations if each.is_whole), None)


def _other_adapter(
    reference: ParityReference, rounding: Rounding, said: Sequence[float]
) -> str | None:
    """Describe the share of the adapter's effect in the engine, if it is not 100 %."""
    full = _full(reference)
    lack = rounding.share_of(full.figures, said) if full else None
    if lack is None or not Share(abs(lack.value), lack.error).is_beyond(OTHER_SHARE, ERRORS):
        return None
    return (
        f"The engine runs another adapter, or applies this one partly or too strongly: it shows "
        f"{1 - lack.value:.0%} (± {lack.error:.0%}) of the adapter's effect."
    )


def _cost(found: Parity, trained: NumberFormat, served: NumberFormat) -> str:
    return (
        f"The model was trained in {trained} and is served in {served}: {served} arithmetic "
        f"changes its log-probabilities by {_mean(found):.2g} nat on average (at most "
        f"{LARGE_COST_NATS:g} is accepted). Serve it in {trained}, or train it in {served}."
    )


def _unsaid_format(reference: ParityReference, found: Parity, served: NumberFormat) -> str | None:
    """Return a message if the differences match the rounding of a coarser number format."""
    for coarser in ("bf16", "fp16"):
        if is_coarser(coarser, served) and is_coarser(coarser, reference.precision):
            expected = Rounding.measured(reference, coarser).mean
            if expected / 3 <= _mean(found) <= expected * 3:
                return (
                    f"The engine reports {served}, but its log-probabilities differ by as much as "
                    f"with {coarser} arithmetic ({expected:.2g} nat on average)."
                )
    return None


def _figures(found: Parity, reference: ParityReference, replies: Replies) -> str:
    rows: list[ReplayedRow | ReplayedText] = list(reference.rows)
    by_row = [
        max((abs(a - b) for a, b in zip(row.figures, reply.figures, strict=True)), default=0.0)
        for row, reply in zip(rows, replies.rows, strict=True)
    ]
    worst, line = max(zip(by_row, (row.line for row in rows), strict=True))
    return (
        f"Log-probabilities differ from training's by up to {worst:.3g} nat (line {line}; "
        f"allowed {found.max_allowed_nats:.3g}) and by {found.mean_difference_nats:.3g} nat on "
        f"average (allowed {found.mean_allowed_nats:.3g}); rounding alone causes up to "
        f"{found.max_rounding_nats:.3g} and {found.mean_rounding_nats:.3g}."
    )
