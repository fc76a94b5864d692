"""Compares what the engine said of the rows of a job with what training says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.spec.generation import TokenPrompt
from core.spec.parity import NumberFormat, Parity, ParityReference, ReplayedRow, ReplayedText
from worker.replay import Replies, Reply


@dataclass(frozen=True)
class Tolerance:
    """In nats, over all tokens that are compared."""

    mean: float
    max: float

    def holds(self, differences: Sequence[float]) -> bool:
        """Say whether all is within bounds; what is no number is not."""
        within = all(difference <= self.max for difference in differences)
        return within and sum(differences) / len(differences) <= self.mean


_OF_16_BITS = Tolerance(mean=0.02, max=0.3)
TOLERANCES: dict[NumberFormat, Tolerance] = {
    "fp32": Tolerance(mean=1e-3, max=1e-3),
    "fp16": _OF_16_BITS,
    "bf16": _OF_16_BITS,
}


def judge(reference: ParityReference, replies: Replies) -> Parity:
    """Return whether the engine serves what was trained, and if not, what differs."""
    trained, served = reference.precision, replies.engine_precision or reference.precision
    # the coarser of two formats decides; that of fp32 is the finest
    tolerance = TOLERANCES[served if trained == "fp32" else trained]
    found = Parity(
        status="passed",
        rows=len(reference.rows),
        token_rows=sum(_is_asked_by_tokens(row) for row in reference.rows),
        training_precision=trained,
        engine_precision=replies.engine_precision,
        max_allowed_nats=tolerance.max,
        mean_allowed_nats=tolerance.mean,
        quantisation_gap_nats=reference.quantisation_gap_nats,
    )
    for row, reply in zip(reference.rows, replies.rows, strict=True):
        if isinstance(row, ReplayedRow) and reply.prompt_ids != row.prompt_ids:
            return _failed(found, "template", _other_tokens(row, reply.prompt_ids))
    by_row = list(_differences(reference.rows, replies.rows))
    differences = [difference for row in by_row for difference in row]
    if not differences:
        return Parity(status="unchecked", reason="no token of the rows is trained")
    found = found.model_copy(
        update={
            "tokens": len(differences),
            "max_difference_nats": max(differences),
            "mean_difference_nats": sum(differences) / len(differences),
        }
    )
    if tolerance.holds(differences):
        return found
    figures = _figures(found, [row.line for row in reference.rows], by_row)
    if ignored := _ignored_modules(reference, replies, tolerance):
        return _failed(found, "module", f"{ignored}. {figures}")
    if trained != served:
        return _failed(
            found, "precision", f"It was trained in {trained} and is served in {served}. {figures}"
        )
    return _failed(found, "numbers", figures)


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


def _differences(
    rows: Sequence[ReplayedRow] | Sequence[ReplayedText], replies: Sequence[Reply]
) -> Iterator[list[float]]:
    for number, reply in enumerate(replies):
        row = rows[number]
        yield [abs(a - b) for a, b in zip(_expected(row), reply.figures, strict=True)]


def _expected(row: ReplayedRow | ReplayedText) -> list[float]:
    if isinstance(row, ReplayedText):
        return list(row.logprobs.values())
    return [logprob for logprob in row.logprobs if logprob is not None]


def _ignored_modules(
    reference: ParityReference, replies: Replies, tolerance: Tolerance
) -> str | None:
    """Name the modules without which the model answers as the engine does."""
    said = replies.rows[0].figures
    for ablation in reference.ablations:
        differences = [abs(a - b) for a, b in zip(ablation.figures, said, strict=True)]
        if tolerance.holds(differences):
            modules = "modules" if ablation.count > 1 else "module"
            return (
                f"The engine ignores {ablation.modules} ({ablation.count} trained {modules}): it "
                "answers as the model does without"
            )
    return None


def _figures(found: Parity, lines: Sequence[int], by_row: Sequence[Sequence[float]]) -> str:
    worst = max(zip(map(max, by_row), lines, strict=True))
    return (
        f"Log-probabilities differ from training's by up to {worst[0]:.3g} nat (line {worst[1]}; "
        f"allowed {found.max_allowed_nats:g}) and by {found.mean_difference_nats:.3g} nat on "
        f"average (allowed {found.mean_allowed_nats:g})."
    )
