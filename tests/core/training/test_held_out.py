"""What a run hands over for its verdict: the base's figures, the curve, rows as questions."""

import json
import random

import pytest
import torch

from core.evaluation.validation import validate
from core.models.precision import pick_device
from core.spec.events import Evaluated, RunFinished
from core.spec.objective import ClassificationSpec, DpoSpec, PretrainingSpec
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
)
from core.training import baseline, held_out
from core.training.data import load_dataset
from core.training.inputs import inputs_of
from core.training.model import load_model
from core.training.recipe import train
from core.verdict import questions
from tests.core.training.conftest import write_chats

STRATEGIES = [
    LoraSpec(rank=4),
    LoraSpec(rank=4, use_dora=True),
    QloraSpec(rank=4),
    FullSpec(),
    BottleneckSpec(reduction_factor=4),
    PrefixSpec(virtual_tokens=4),
    PromptSpec(virtual_tokens=4),
    Ia3Spec(),
]


def never():
    return False


def finish(spec, workspace, stop=never):
    last = list(train(spec, workspace, stop))[-1]
    assert isinstance(last, RunFinished)
    return last


def facts(spec, workspace):
    return finish(spec, workspace).held_out


def untouched_loss(spec, workspace):
    """The held-out loss of the base, loaded as the job loads it, without the strategy."""
    inputs = inputs_of(spec, spec.base)
    dataset = load_dataset(inputs, workspace)
    adapted = load_model(spec, workspace, inputs.tokenizer, torch.float32, pick_device())
    if adapted.config is not None:
        adapted.remove()
    rows, budget = dataset.validation_rows, spec.training.micro_batch_tokens
    return validate(adapted, inputs.objective, rows, budget, never)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.type)
def test_figures_of_the_base_are_those_of_the_untouched_base(strategy, job, workspace):
    write_chats(workspace.validation_file, 6, seed=5)
    spec = job(strategy, max_steps=2)
    found = facts(spec, workspace)
    expected = untouched_loss(spec, workspace)
    assert found.base.loss == pytest.approx(expected.loss, abs=1e-6)
    assert found.base.accuracy == expected.accuracy
    assert found.tuned is not None and found.tuned.loss != found.base.loss


def test_figures_of_the_tuned_model_are_those_of_its_step(job, workspace):
    write_chats(workspace.validation_file, 6, seed=5)
    spec = job(epochs=3, batch_size=4, learning_rate=0.1)
    events = list(train(spec, workspace, never))
    evaluated = {event.step: event.loss for event in events if isinstance(event, Evaluated)}
    last = events[-1]
    assert last.held_out.tuned.loss == evaluated[last.step] == min(evaluated.values())
    curve = last.held_out.curve
    assert {point.step: point.held_out_loss for point in curve} == evaluated
    steps = [event.loss for event in events if event.type == "step_done"]
    assert curve[0].train_loss == pytest.approx(sum(steps[: curve[0].step]) / curve[0].step)


def test_measuring_the_base_does_not_change_the_run(job, workspace, monkeypatch):
    write_chats(workspace.validation_file, 6, seed=5)
    spec = job(LoraSpec(rank=4, dropout=0.2), neftune_alpha=5)
    measured = finish(spec, workspace)
    monkeypatch.setattr(baseline, "_measured", lambda *_: baseline.Baseline(missing="left out"))
    assert finish(spec, workspace).weights_sha256 == measured.weights_sha256


def test_without_held_out_rows_nothing_is_measured_or_asked(job, workspace, monkeypatch):
    monkeypatch.setattr(baseline, "validate", None)  # a call would fail
    found = facts(job(max_steps=1), workspace)
    assert (found.rows, found.source, found.base, found.tuned) == (0, None, None, None)
    assert found.questions == () and found.curve == ()
    assert found.base_missing == "there are no held-out rows"


def test_measurement_that_takes_too_long_is_left_out(job, workspace, monkeypatch):
    write_chats(workspace.validation_file, 6, seed=5)
    monkeypatch.setattr(baseline, "LONGEST_SECONDS", -1.0)
    found = facts(job(max_steps=1), workspace)
    assert found.base is None and found.base_missing == "it took longer than -1 s"
    assert found.tuned is not None


def test_base_is_measured_once_over_interruptions(job, workspace, monkeypatch):
    write_chats(workspace.validation_file, 6, seed=5)
    spec = job(FullSpec(), epochs=2)
    uninterrupted = finish(spec, workspace)
    asked = 0

    def after_a_step():
        nonlocal asked
        asked += 1
        return asked > 8

    *_, saved = train(spec, workspace, after_a_step)
    assert saved.type == "resume_state_saved" and saved.step > 0
    monkeypatch.setattr(baseline, "_measured", None)  # a call would fail
    resumed = finish(spec, workspace)
    assert resumed.held_out == uninterrupted.held_out
    assert resumed.weights_sha256 == uninterrupted.weights_sha256


def test_rows_of_a_split_become_questions_with_their_answers(job, workspace):
    write_chats(workspace.train_file, 40)
    spec = job(max_steps=1, evaluation={"split": 0.25, "samples": 6})
    found = facts(spec, workspace)
    assert (found.rows, found.source, found.form) == (10, "split", "chat")
    assert len(found.questions) == 6 and found.omitted == 0
    lines = workspace.train_file.read_text().splitlines()
    for question in found.questions:
        *prompt, answer = json.loads(lines[question.line - 1])["messages"]
        assert list(question.messages) == prompt
        assert question.reference == answer["content"]
        assert 16 < question.max_tokens <= 16 + 2 * len(answer["content"])
    assert facts(spec, workspace).questions == found.questions, "drawn with the seed"
    none = job(max_steps=1, evaluation={"split": 0.25, "samples": 0})
    assert facts(none, workspace).questions == ()


def test_rows_of_a_sorted_file_are_drawn_from_all_of_it(job, workspace):
    write_chats(workspace.validation_file, 100, seed=5)
    lines = [question.line for question in facts(job(max_steps=1), workspace).questions]
    assert len(lines) == 20 and lines == sorted(lines)
    assert min(lines) < 30 and max(lines) > 70


def test_long_rows_are_not_sent(job, workspace, monkeypatch):
    write_chats(workspace.validation_file, 8, seed=5)
    monkeypatch.setattr(held_out, "MOST_BYTES", 1000)
    found = facts(job(max_steps=1), workspace)
    assert 0 < len(found.questions) < 8
    assert found.omitted == 8 - len(found.questions)
    monkeypatch.setattr(questions, "LONGEST_QUESTION", 10)
    assert facts(job(max_steps=1), workspace).omitted == 8


def test_plain_texts_have_no_questions(job, workspace):
    rows = [json.dumps({"text": f"some text {number}"}) for number in range(12)]
    workspace.train_file.write_text("\n".join(rows))
    spec = job(objective=PretrainingSpec(), max_steps=1, evaluation={"split": 0.25})
    found = facts(spec, workspace)
    assert (found.rows, found.form, found.questions, found.omitted) == (3, "text", (), 3)
    assert found.base is not None


def test_preferences_are_asked_for_the_chosen_answer(job, workspace):
    rows = [
        json.dumps({"prompt": f"{number}?", "chosen": f"yes {number}", "rejected": "no"})
        for number in range(12)
    ]
    workspace.train_file.write_text("\n".join(rows))
    found = facts(job(objective=DpoSpec(), max_steps=1, evaluation={"split": 0.25}), workspace)
    assert found.base.loss == pytest.approx(0.6931, abs=1e-3), "the log of 2: no margin"
    assert all(question.reference.startswith("yes") for question in found.questions)


def test_classifier_has_its_majority_and_no_base(job, workspace):
    draw = random.Random(1)
    labels = ["cat"] * 20 + ["dog"] * 8
    rows = [json.dumps({"text": f"a {draw.random()}", "label": label}) for label in labels]
    workspace.train_file.write_text("\n".join(rows))
    spec = job(
        objective=ClassificationSpec(labels=("cat", "dog")),
        max_steps=1,
        evaluation={"split": 0.25},
    ).model_copy(update={"task": "classification"})
    found = facts(spec, workspace)
    assert (found.majority, found.form, found.base) == (("cat",), "labels", None)
    assert "head of a classifier is new" in found.base_missing
    by_line = {question.line: question for question in found.questions}
    assert by_line and all(by_line[line].labels == (labels[line - 1],) for line in by_line)
    assert found.tuned is not None


def test_long_curve_keeps_its_best_and_last_points(monkeypatch):
    from core.artifacts.metrics import StepMetrics

    monkeypatch.setattr(held_out, "MOST_POINTS", 10)
    curve = [StepMetrics(step, 1.0, 0.5, abs(step - 37.0), 0.5) for step in range(1, 101)]
    points = held_out._points(curve)
    assert len(points) <= 10
    assert {37, 100} <= {point.step for point in points}


def test_card_of_the_bundle_compares_with_the_base(job, workspace):
    write_chats(workspace.validation_file, 6, seed=5)
    last = finish(job(max_steps=2, evaluation={"prompts": ["a secret"]}), workspace)
    card = (last.folder / "README.md").read_text()
    found = last.held_out
    assert "| Held-out rows | Base | Tuned |" in card
    assert f"| Loss | {found.base.loss:.4f} | {found.tuned.loss:.4f} |" in card
    assert "| Perplexity | " in card and "6 held-out rows" in card
    assert "a secret" not in card
