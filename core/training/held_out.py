"""What a run hands over for its verdict: figures, the curve, and held-out rows as questions."""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice

from transformers import PreTrainedTokenizerBase

from core.artifacts.metrics import StepMetrics
from core.batching.rows import LabelledRow
from core.datasets.read import read_examples
from core.spec.held_out import CurvePoint, Figures, HeldOutFacts, Question
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.training.data import Dataset
from core.training.loop import Training
from core.training.state import RunState
from core.verdict.questions import form_of, question_of, short

LONGEST_ANSWER = 256
"""Tokens."""
SPARE_TOKENS = 16
"""An answer may have these, and twice the tokens of the row's answer."""
MOST_BYTES = 1024 * 1024
"""Of all questions as JSON, since they are one message on a pipe."""
MOST_POINTS = 500
"""Of the curve."""
UNMEASURED = "the run was resumed at its end, from a state that does not have it"


def held_out_facts(training: Training, state: RunState, step: int) -> HeldOutFacts:
    """Return the facts of a finished run whose final weights are those after `step`."""
    dataset, spec, curve = training.dataset, training.spec, state.curve
    rows, baseline = len(dataset.validation_rows), state.baseline
    file = training.workspace.train_file
    _, first = next(read_examples(file, spec.columns))
    asked, omitted = questions_of(training)
    return HeldOutFacts(
        rows=rows,
        source=None if not rows else "split" if dataset.held_out else "validation_file",
        base=baseline.figures if baseline else None,
        base_missing=baseline.missing if baseline else UNMEASURED,
        tuned=_tuned(curve, step),
        curve=_points(curve),
        form=form_of(first),
        questions=asked,
        omitted=omitted,
        majority=_majority(spec, dataset),
    )


def _tuned(curve: Sequence[StepMetrics], step: int) -> Figures | None:
    for entry in curve:
        if entry.step == step and entry.valid_loss is not None:
            assert entry.valid_mean_token_accuracy is not None
            return Figures(loss=entry.valid_loss, accuracy=entry.valid_mean_token_accuracy)
    return None


def _points(curve: Sequence[StepMetrics]) -> tuple[CurvePoint, ...]:
    """Return the evaluations; of very many, some at equal distances with the best and the last."""
    points, since = [], []
    for entry in curve:
        if entry.train_loss is not None:
            since.append(entry.train_loss)
        if entry.valid_loss is not None and since:
            mean = sum(since) / len(since)
            points.append(
                CurvePoint(step=entry.step, train_loss=mean, held_out_loss=entry.valid_loss)
            )
            since = []
    if len(points) <= MOST_POINTS:
        return tuple(points)
    best = min(range(len(points)), key=lambda index: points[index].held_out_loss)
    stride = len(points) / (MOST_POINTS - 2)
    kept = {int(stride * number) for number in range(MOST_POINTS - 2)} | {best, len(points) - 1}
    return tuple(points[index] for index in sorted(kept))


def questions_of(training: Training) -> tuple[tuple[Question, ...], int]:
    """Return questions of rows drawn with the seed, and the number of rows that became none."""
    spec, workspace, dataset = training.spec, training.workspace, training.dataset
    lines = sorted({row.line for row in dataset.validation_rows})
    count = min(spec.evaluation.samples, len(lines))
    chosen = set(random.Random(spec.seed).sample(lines, count))
    if not chosen:
        return (), 0
    file = workspace.train_file if dataset.held_out else workspace.validation_file
    examples = islice(read_examples(file, spec.columns), max(chosen))
    found = (question_of(line, example) for line, example in examples if line in chosen)
    kept = tuple(_short(found, training.tokenizer))
    return kept, count - len(kept)


def _short(
    questions: Iterator[Question | None], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Question]:
    """Yield those that are short enough to be sent, with the limit of their answers."""
    for question in short(questions, MOST_BYTES):
        answer = question.reference or ""
        if question.tool_calls:
            answer += json.dumps(question.tool_calls)
        tokens = len(tokenizer(answer, add_special_tokens=False)["input_ids"])
        limit = min(LONGEST_ANSWER, SPARE_TOKENS + 2 * tokens)
        yield question.model_copy(update={"max_tokens": limit})


def _majority(spec: JobSpec, dataset: Dataset) -> tuple[str, ...] | None:
    """Return the most frequent labels of a row that is trained on, the first of equal ones."""
    if not isinstance(spec.objective, ClassificationSpec):
        return None
    counts: dict[tuple[int, ...], int] = {}
    for row in dataset.rows:
        assert isinstance(row, LabelledRow)
        labels = tuple(sorted(row.labels))
        counts[labels] = counts.get(labels, 0) + 1
    most = min(counts, key=lambda labels: (-counts[labels], labels))
    return tuple(spec.objective.labels[index] for index in most)
