"""Compares what the engine said of the rows of a job with what training says of them."""

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
"""Over the root of their number: what a mean of few figures may be off by chance."""
MAX_FACTOR = 3.0
FLOOR_MEAN_NATS = 1e-4
FLOOR_MAX_NATS = 1e-3
"""Nobody minds so little, and in fp32 measured rounding is less."""

LARGE_COST_NATS = 0.1
"""What a coarser format may change on average: a tenth of every probability."""

IGNORED_SHARE = 0.5
UNEXPLAINED_SHARE = 0.1
"""Of a difference, what may be left beside the lack of a module; a base rounds more than a tuned
model, to which the rows are likely."""
OTHER_SHARE = 0.1
ERRORS = 4.0
"""How many times its error a share must be from 0."""


def judge(reference: ParityReference, replies: Replies) -> Parity:
    """Return whether the engine serves what was trained, and if not, what differs."""
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
        return Parity(status="unchecked", reason="no token of the rows is trained")
    if not reference.repeats:
        return Parity(status="unchecked", reason="training left no measure of its own rounding")
    if not all(map(math.isfinite, said)):
        return _failed(found, "numbers", "the engine's figures are no numbers.")
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
    whole = _whole(reference)
    share = rounding.share_of(whole.figures, said) if whole else None
    return found.model_copy(
        update={
            "tokens": len(differences),
            "max_difference_nats": max(differences),
            "mean_difference_nats": sum(differences) / len(differences),
            "max_rounding_nats": rounding.max,
            "mean_rounding_nats": rounding.mean,
            "max_allowed_nats": FLOOR_MAX_NATS + MAX_FACTOR * rounding.max,
            "mean_allowed_nats": FLOOR_MEAN_NATS + factor * rounding.mean,
            "adapter_effect_nats": _mean_distance(whole.figures, rounding.figures)
            if whole
            else None,
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
    same = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
    place = min(len(row.prompt_ids), len(ids)) if same is None else same
    return (
        f"The engine's chat template or tokenizer is another one: it reads the prompt of line "
        f"{row.line} as {len(ids)} tokens, training as {len(row.prompt_ids)}, and they differ "
        f"from token {place} on."
    )


def _ignored(
    ablations: Sequence[Ablation], rounding: Rounding, said: Sequence[float], found: Parity
) -> Ablation | None:
    """Return the modules whose lack explains nearly all of a difference; None if none does."""
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
    modules = "modules" if ignored.count > 1 else "module"
    return (
        f"The engine ignores {ignored.modules} ({ignored.count} trained {modules}): it answers as "
        "the model does without"
    )


def _whole(reference: ParityReference) -> Ablation | None:
    return next((each for each in reference.ablations if each.is_whole), None)


def _other_adapter(
    reference: ParityReference, rounding: Rounding, said: Sequence[float]
) -> str | None:
    """Say how much of the adapter's effect the engine gives, when that is not all of it."""
    whole = _whole(reference)
    lack = rounding.share_of(whole.figures, said) if whole else None
    if lack is None or not Share(abs(lack.value), lack.error).is_beyond(OTHER_SHARE, ERRORS):
        return None
    return (
        f"The engine runs another adapter, or this one in part or too strongly: it gives "
        f"{1 - lack.value:.0%} (± {lack.error:.0%}) of what the adapter changes in the base."
    )


def _cost(found: Parity, trained: NumberFormat, served: NumberFormat) -> str:
    return (
        f"It was trained in {trained} and is served in {served}: {served} arithmetic changes this "
        f"model's answers by {_mean(found):.2g} nat on average (at most {LARGE_COST_NATS:g} is "
        f"accepted). Serve it in {trained}, or train it in {served}."
    )


def _unsaid_format(reference: ParityReference, found: Parity, served: NumberFormat) -> str | None:
    """Name a coarser format when the differences are as large as those of its arithmetic."""
    for coarser in ("bf16", "fp16"):
        if is_coarser(coarser, served) and is_coarser(coarser, reference.precision):
            expected = Rounding.measured(reference, coarser).mean
            if expected / 3 <= _mean(found) <= expected * 3:
                return (
                    f"The engine says that it computes in {served}, but its answers differ as much "
                    f"as {coarser} arithmetic makes them ({expected:.2g} nat on average)."
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
        f"average (allowed {found.mean_allowed_nats:.3g}); rounding alone makes up to "
        f"{found.max_rounding_nats:.3g} and {found.mean_rounding_nats:.3g}."
    )
