"""The replayed rows of a parity reference, with training's figures."""

from collections.abc import Sequence
from typing import assert_never

from core.batching.rows import LabelledRow, Row, SourceTargetRow
from core.spec.generation import TextPrompt
from core.spec.parity import ReplayedRow, ReplayedText
from core.training.replayed import Replay
from core.training.trained import Trained


def described(
    trained: Trained, replays: Sequence[Replay], figures: Sequence[Sequence[float]]
) -> tuple[ReplayedRow, ...] | tuple[ReplayedText, ...]:
    rows = list(zip(replays, figures, strict=True))
    if trained.spec.task == "classification":
        return tuple(_text(replay, trained.labels, each) for replay, each in rows)
    return tuple(_row(replay, each, trained.opening_tokens(replay)) for replay, each in rows)


def _text(replay: Replay, labels: Sequence[str], figures: Sequence[float]) -> ReplayedText:
    assert isinstance(replay.prompt, TextPrompt)
    logprobs = dict(zip(labels, figures, strict=True))
    return ReplayedText(line=replay.row.line, text=replay.prompt.text, logprobs=logprobs)


def _row(replay: Replay, figures: Sequence[float], opening: int) -> ReplayedRow:
    logprobs: list[float | None]
    match replay.row:
        case SourceTargetRow():
            logprobs = [*(None for _ in replay.prompt_ids), *figures[opening:]]
        case Row(trained=trained):
            found = iter(figures)
            logprobs = [next(found) if is_trained else None for is_trained in trained]
        case LabelledRow():
            raise TypeError("a text to classify has no tokens to replay; use `_text`")
        case _:
            assert_never(replay.row)
    return ReplayedRow(
        line=replay.row.line,
        prompt=replay.prompt,
        prompt_ids=replay.prompt_ids,
        answer=replay.answer[opening:],
        logprobs=tuple(logprobs),
    )
