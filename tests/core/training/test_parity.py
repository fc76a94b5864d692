"""Which rows are replayed and in what form, and when there is nothing to compare with."""

import json

import pytest
import torch
from safetensors.torch import load_file

from core.adapters.memory import OutOfMemory
from core.errors import TrainingFailed
from core.models.load import load_base
from core.spec.events import CheckpointSaved, ResumeStateSaved, RunFinished, StepDone
from core.spec.generation import ChatPrompt, TextPrompt, TokenPrompt
from core.spec.objective import KtoSpec
from core.spec.parity import ParityReference
from core.spec.strategy import LoraSpec, QloraSpec
from core.training import parity, parity_passes, trained
from core.training.parity_passes import CHECKPOINT, FINAL
from core.training.recipe import train
from core.training.replayed import LONGEST_ANSWER, LONGEST_ROW, REPLAYED_ROWS


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def chat(question, answer, **message):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, **message},
        ]
    }


@pytest.fixture
def reference(job, workspace):
    """Run a job to its end and return what it leaves to compare with."""

    def run(strategy=None, **options):
        return list(train(job(strategy, **options), workspace, lambda: False))[-1].reference

    return run


def test_held_out_rows_are_taken_and_few_of_them(reference, workspace):
    write(workspace.validation_file, *(chat(f"{n}", "yes") for n in range(20)))
    rows = reference().rows
    assert [row.line for row in rows] == list(range(1, REPLAYED_ROWS + 1))
    assert rows[3].prompt == ChatPrompt(messages=({"role": "user", "content": "3"},))


def test_rows_held_out_of_the_training_file_keep_their_lines(reference, workspace):
    write(workspace.train_file, *(chat(f"question {n}", "yes") for n in range(1, 17)))
    rows = reference(evaluation={"split": 0.25}).rows
    assert len(rows) == 4
    for row in rows:
        assert row.prompt.messages[0]["content"] == f"question {row.line}"


def test_figures_are_those_of_the_trained_tokens(reference, chat_tokenizer, workspace):
    row = reference().rows[0]
    prompt, answer = row.logprobs[: len(row.prompt_ids)], row.logprobs[len(row.prompt_ids) :]
    assert set(prompt) == {None}
    assert len(answer) == len(row.answer) and all(figure < 0 for figure in answer)
    messages = json.loads(workspace.train_file.read_text().splitlines()[0])["messages"]
    assert chat_tokenizer.decode(row.answer) == messages[1]["content"] + "<|im_end|>"


def test_earlier_turns_that_are_trained_are_compared_within_the_prompt(reference, workspace):
    first, second = chat("a", "bb")["messages"], chat("c", "d")["messages"]
    unweighted = chat("e", "f", weight=0)["messages"]
    write(
        workspace.train_file, {"messages": [*first, *second]}, {"messages": [*first, *unweighted]}
    )
    both, only_first = reference(batch_size=1).rows
    assert len(both.prompt.messages) == 3
    in_prompt = [figure for figure in both.logprobs[: len(both.prompt_ids)] if figure is not None]
    assert len(in_prompt) == 3, "two letters, and the end of the turn"
    assert len(only_first.prompt.messages) == 1, "the turn of weight 0 is not the answer"
    assert only_first.logprobs[-1] is not None, "what follows the last trained token is left out"


def test_completion_is_asked_for_apart_from_its_prompt_as_users_ask(reference, workspace):
    rows = ("x", "yz"), ("xa", "bz")  # "ab" is one token
    write(workspace.train_file, *({"prompt": a, "completion": b} for a, b in rows))
    apart, joined = reference(batch_size=1).rows
    assert (apart.prompt, len(apart.answer)) == (TextPrompt(text="x"), 3)
    assert (joined.prompt, len(joined.answer)) == (TextPrompt(text="xa"), 3)
    assert [figure is None for figure in joined.logprobs] == [True, True, False, False, False]


def test_rated_answers_are_asked_as_users_ask_also_those_of_preferences(reference, workspace):
    question = {"role": "user", "content": "a"}
    answers = [{"role": "assistant", "content": text} for text in ("b", "cd")]
    pair = {"prompt": [question], "chosen": answers[:1], "rejected": answers[1:]}
    rated = {"messages": [question, answers[0]], "label": False}
    for row, count in ((pair, 2), (rated, 1)):
        write(workspace.train_file, row)
        found = reference(batch_size=1, objective=KtoSpec()).rows
        assert len({tuple(each.answer) for each in found}) == len(found) == count
        assert all(each.prompt == ChatPrompt(messages=(question,)) for each in found)


def test_row_that_was_cut_is_asked_by_its_tokens(reference, workspace):
    write(workspace.train_file, chat("q" * 80, "a" * 40), chat("p" * 80, "b" * 40))
    (row, _) = reference(max_length=64, truncation="start", batch_size=1).rows
    assert isinstance(row.prompt, TokenPrompt)
    assert row.prompt.tokens == row.prompt_ids
    assert len(row.prompt_ids) + len(row.answer) <= 64


def test_long_answers_are_compared_as_far_as_the_bound(reference, workspace):
    write(workspace.train_file, chat("a", "b" * 200), chat("c", "d" * 200))
    row = reference(batch_size=1).rows[0]
    assert len(row.answer) == LONGEST_ANSWER
    assert len(row.logprobs) == len(row.prompt_ids) + LONGEST_ANSWER


def test_shortest_row_is_taken_when_all_are_long(reference, workspace, monkeypatch):
    assert LONGEST_ROW == 1024
    monkeypatch.setattr("core.training.replayed.LONGEST_ROW", 20)
    write(workspace.train_file, chat("a" * 50, "b"), chat("a" * 30, "b"), chat("a" * 40, "b"))
    (row,) = reference(batch_size=1).rows
    assert row.line == 2


def test_each_kind_of_module_is_left_out_once(reference):
    found = reference(LoraSpec(rank=4, target_modules=("q_proj", "v_proj")))
    assert [(each.modules, each.count, each.is_whole) for each in found.ablations] == [
        ("the whole adapter", 1, True),
        ("q_proj", 2, False),
        ("v_proj", 2, False),
    ]
    for ablation in found.ablations:
        begun = found.figures[: len(ablation.figures)]
        assert ablation.figures != pytest.approx(begun, abs=1e-4)


def test_comparison_changes_nothing_in_the_bundle(job, workspace, monkeypatch):
    def weights():
        list(train(job(), workspace, lambda: False))
        return load_file(workspace.bundle_folder / "adapter_model.safetensors")

    with_it = weights()
    empty = ParityReference(precision="fp32", missing="not measured")
    monkeypatch.setattr("core.training.loop.parity_reference", lambda *_: empty)
    without = weights()
    assert all(torch.equal(with_it[name], without[name]) for name in with_it | without)


def test_qlora_whose_plain_base_does_not_fit_says_so(reference, monkeypatch):
    monkeypatch.setattr(parity, "free_bytes", lambda device: 1000)
    found = reference(QloraSpec(rank=4))
    assert found.rows == ()
    assert "GiB in addition to the quantized one" in found.missing


def test_qlora_whose_plain_base_runs_out_of_memory_says_so(reference, monkeypatch):
    def load(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(parity, "load_base", load)
    assert reference(QloraSpec(rank=4)).missing.startswith("not enough memory")


def test_qlora_is_compared_on_the_base_that_serves_it(reference, base_spec):
    found = reference(QloraSpec(rank=4))
    assert found.quantization_gap_nats > 0
    model = load_base(base_spec, torch.float32, torch.device("cpu"))
    row = found.rows[0]
    ids = torch.tensor([[*row.prompt_ids, *row.answer]])
    with torch.inference_mode():
        logprobs_TV = model(ids).logits[0].log_softmax(-1)
    base_says = [
        logprobs_TV[position - 1, ids[0, position]].item()
        for position, figure in enumerate(row.logprobs)
        if figure is not None
    ]
    (whole,) = [each for each in found.ablations if each.is_whole]
    assert whole.figures[: len(base_says)] == pytest.approx(base_says, abs=1e-4)


def test_model_that_says_nothing_finite_ends_the_run(job, workspace, monkeypatch):
    real = trained.figures_of

    def broken(*arguments, **options):
        return [[float("nan"), *row[1:]] for row in real(*arguments, **options)]

    monkeypatch.setattr(trained, "figures_of", broken)
    with pytest.raises(TrainingFailed, match="are not finite") as caught:
        list(train(job(), workspace, lambda: False))
    assert caught.value.code == "loss_nonfinite"


def test_checkpoints_have_a_reference_of_their_own_and_the_last_one_is_the_models(job, workspace):
    write(workspace.train_file, *(chat(f"question {n}", f"answer {n}") for n in range(8)))
    events = list(train(job(epochs=2, batch_size=4, learning_rate=1e-2), workspace, lambda: False))
    first, last = [event for event in events if isinstance(event, CheckpointSaved)]
    assert len(first.reference.rows) == CHECKPOINT.rows
    assert len(last.reference.rows) == REPLAYED_ROWS
    assert [each.is_whole for each in first.reference.ablations] == [True]
    assert {each.is_whole for each in last.reference.ablations} == {True, False}
    begun = last.reference.figures[: len(first.reference.figures)]
    assert first.reference.figures != pytest.approx(begun, abs=1e-3)
    assert events[-1].reference == last.reference, "the same weights"


def test_reference_of_checkpoints_changes_nothing_in_training(job, workspace, monkeypatch):
    def losses():
        events = train(job(epochs=2, batch_size=2), workspace, lambda: False)
        return [event.loss for event in events if isinstance(event, StepDone)]

    with_them = losses()
    empty = ParityReference(precision="fp32", missing="not measured")
    monkeypatch.setattr("core.training.loop.parity_reference", lambda *_: empty)
    assert losses() == with_them


def test_run_that_is_stopped_while_it_measures_saves_its_state(job, workspace, monkeypatch):
    asked = []
    real = parity_passes.perturbed_rounding

    def rounding(*arguments):
        asked.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(parity_passes, "perturbed_rounding", rounding)
    events = list(train(job(), workspace, lambda: bool(asked)))
    assert isinstance(events[-1], ResumeStateSaved)
    assert len(asked) == 1
    monkeypatch.undo()
    assert isinstance(list(train(job(), workspace, lambda: False))[-1], RunFinished)


def test_rows_are_repeated_with_other_roundings(reference):
    found = reference()
    own = [each.figures for each in found.repeats if each.precision == "fp32"]
    coarser = [each.figures for each in found.repeats if each.precision == "bf16"]
    assert (len(own), len(coarser)) == (FINAL.repeats, FINAL.coarser_repeats)
    assert len(set(own)) == len(own) and found.figures not in own
    for figures, nats in [(own[0], 1e-4), (coarser[0], 0.5)]:
        assert figures == pytest.approx(found.figures, abs=nats)
    assert coarser[0] != pytest.approx(found.figures, abs=1e-3)


def test_memory_that_runs_out_leaves_a_smaller_measurement(reference, monkeypatch):
    real, calls = trained.figures_of, []

    def short(adapted, rows, budget, **options):
        calls.append(budget)
        if len(rows) > 1 and budget > 30:
            raise OutOfMemory(60)
        return real(adapted, rows, budget, **options)

    monkeypatch.setattr(trained, "figures_of", short)
    found = reference()
    assert found.rows and len(found.repeats) == 6
    assert 30 in calls


def test_pass_that_does_not_fit_at_all_is_left_out(reference, monkeypatch):
    real, calls = trained.figures_of, []

    def short(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 3:
            raise TrainingFailed("no room", code="out_of_memory")
        return real(*arguments, **options)

    monkeypatch.setattr(trained, "figures_of", short)
    found = reference(epochs=1)
    assert (len(found.repeats), found.ablations) == (2, ())
