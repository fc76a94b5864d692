"""KTO against TRL's trainer, against its formulas, and whatever the split into micro-batches."""

import pytest
import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from core.batching.rows import InvalidRow, Row
from core.datasets.formats import ChatExample, CompletionExample, RatedExample
from core.evaluation.validation import validate
from core.objectives.answers import answer_log_probabilities
from core.objectives.kto import mismatched
from core.training.step import accumulate_gradients
from tests.core.objectives.rated import answers, examples, kto, row
from tests.core.objectives.test_dpo import with_peft


class RecordingTrainer(KTOTrainer):
    """Keeps the loss and the KL estimate of every step."""

    def compute_loss(self, *arguments, **options):
        loss = super().compute_loss(*arguments, **options)
        kl = self._metrics["train"]["kl"][-1]
        self.recorded = [*getattr(self, "recorded", []), (loss.item(), kl)]
        return loss


@pytest.mark.filterwarnings("ignore")  # TRL's of datasets and weights
def test_losses_and_kl_estimates_are_those_of_trl(
    tmp_path, adapted_of, tiny_model, chat_tokenizer, curve
):
    """One batch is the whole file, so that both pair the same prompts with the same answers."""
    data, epochs = answers(8), 12
    trainer = RecordingTrainer(
        model=with_peft(tiny_model()),
        processing_class=chat_tokenizer,
        train_dataset=Dataset.from_list(data),
        args=KTOConfig(
            output_dir=str(tmp_path),
            beta=0.5,
            desirable_weight=1.0,
            undesirable_weight=1.5,
            per_device_train_batch_size=len(data),
            num_train_epochs=epochs,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=0.0,
            max_length=None,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
    )
    trainer.train()
    objective, adapted = kto(chat_tokenizer, weights=(1.0, 1.5)), adapted_of()
    rows = objective.rows(examples(data))
    objective.prepare(adapted, rows, 100)
    steps = curve(adapted, objective, rows * epochs, len(rows), 1e-2)
    expected = [loss for loss, _ in trainer.recorded]
    assert [step.loss / step.targets for step in steps] == pytest.approx(expected, abs=1e-4)
    kl = [each for _, each in trainer.recorded]
    assert max(kl) > 0.1 and kl[0] == pytest.approx(0, abs=1e-5), "z would not be seen to matter"


@torch.no_grad()
def log_probability(model, row):
    logits_TV = model(torch.tensor([row.tokens]), segment_lengths=(row.length,)).logits[0]
    found_T = torch.log_softmax(logits_TV, -1)
    return sum(found_T[i - 1, row.tokens[i]].item() for i in range(row.length) if row.trained[i])


@pytest.mark.parametrize("continues", [False, True])
def test_losses_are_those_of_the_formulas(adapted_of, noisy, chat_tokenizer, continues):
    objective, adapted = kto(chat_tokenizer, 0.3, (1.2, 0.7), continues), noisy(adapted_of())
    rows = objective.rows(examples(answers(5)))
    others = list(mismatched(rows, 200).values())
    objective.prepare(adapted, rows, 60)

    def all_of(answers):
        return torch.tensor([log_probability(adapted.model, answer) for answer in answers])

    if continues:
        before = all_of(rows), all_of(others)
    else:
        with adapted.off():
            before = all_of(rows), all_of(others)
    noisy(adapted, std=0.2)
    rewards, usual = all_of(rows) - before[0], (all_of(others) - before[1]).mean().clamp(min=0)
    assert objective.begin_step(adapted, rows, 60, lambda: False)
    sums = objective.loss(adapted, rows)
    is_good = torch.tensor([row.is_good for row in rows])
    good = 1.2 * (1 - torch.sigmoid(0.3 * (rewards - usual)))
    bad = 0.7 * (1 - torch.sigmoid(0.3 * (usual - rewards)))
    expected = torch.where(is_good, good, bad)
    torch.testing.assert_close(sums.row_losses, expected, atol=1e-4, rtol=0)
    assert (sums.targets, int(sums.correct)) == (5, int((is_good == (rewards > usual)).sum()))


def test_gradients_do_not_depend_on_the_split_into_micro_batches(
    adapted_of, noisy, chat_tokenizer, gradients
):
    objective, adapted = kto(chat_tokenizer), adapted_of()
    rows = objective.rows(examples(answers(8)))
    objective.prepare(adapted, rows, 4096)
    noisy(adapted)
    whole, expected = gradients(adapted, objective, rows)
    split, found = gradients(adapted, objective, rows, budget_tokens=1)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_an_evaluation_has_its_own_estimate(adapted_of, noisy, chat_tokenizer):
    objective, adapted = kto(chat_tokenizer), adapted_of()
    rows = objective.rows(examples(answers(8)))
    objective.prepare(adapted, rows, 4096)
    noisy(adapted)
    assert objective.begin_step(adapted, rows[5:], 4096, lambda: False)
    expected = objective.loss(adapted, rows[5:])
    assert objective.begin_step(adapted, rows[:5], 4096, lambda: False)
    found = validate(adapted, objective, rows[5:], 30, lambda: False)
    assert found is not None
    assert found.loss == pytest.approx(expected.loss.item() / 3, rel=1e-4)


@pytest.mark.parametrize(
    "run",
    [
        lambda adapted, objective, rows, stop: validate(adapted, objective, rows, 1, stop),
        lambda adapted, objective, rows, stop: accumulate_gradients(
            adapted, objective, rows, 1, 0, stop
        ),
    ],
    ids=["evaluation", "step"],
)
def test_stop_is_noticed_within_one_micro_batch_of_the_estimate(
    adapted_of, chat_tokenizer, monkeypatch, run
):
    objective, adapted = kto(chat_tokenizer), adapted_of()
    rows = objective.rows(examples(answers(8)))
    objective.prepare(adapted, rows, 4096)
    passes = []

    def counted(adapted, answers):
        passes.append(len(answers))
        return answer_log_probabilities(adapted, answers)

    monkeypatch.setattr("core.objectives.kto.answer_log_probabilities", counted)
    assert run(adapted, objective, rows, lambda: len(passes) == 2) is None
    assert passes == [1, 1]


def test_a_prompt_gets_an_answer_to_another_prompt_and_each_answer_is_used_once():
    rows = [row(1, (1,), (5,)), row(2, (1,), (6,)), row(3, (2,), (7, 8)), row(4, (2,), (9,))]
    found = mismatched([rows[0], rows[2], rows[1], rows[3]], 99)
    assert [found[each].tokens for each in rows] == [(1, 7, 8), (1, 9), (2, 5), (2, 6)]
    mostly = mismatched([*rows[:2], row(5, (1,), (4,)), rows[3]], 99)
    assert [other.tokens for other in mostly.values()] == [(1, 6), (1, 4), (1, 9), (2, 5)]
    same = [row(1, (1,), (5,)), row(2, (1,), (6,))]
    assert [other.tokens for other in mismatched(same, 99).values()] == [(1, 6), (1, 5)]
    alone = [row(1, (1,), (5,))]
    assert mismatched(alone, 99) == {alone[0]: Row(1, (1, 5), (False, True))}


def test_an_answer_to_another_prompt_is_cut_to_the_limit():
    rows = [row(1, (1, 2, 3), (4,)), row(2, (5,), (6, 7, 8))]
    found = mismatched(rows, 4)
    assert found[rows[0]] == Row(1, (1, 2, 3, 6), (False, False, False, True))


def test_only_the_answer_is_counted(chat_tokenizer):
    question = {"role": "user", "content": "Why?"}
    earlier = {"role": "assistant", "content": "One.", "weight": 0}
    answer = ChatExample((question, earlier, question, {"role": "assistant", "content": "Yes."}))
    (found,) = kto(chat_tokenizer).rows([(7, RatedExample(answer, is_good=False))])
    trained = [t for t, on in zip(found.tokens, found.trained, strict=True) if on]
    assert chat_tokenizer.decode(trained) == "Yes.<|im_end|>"
    assert (found.line, found.targets, found.is_good) == (7, 1, False)


def test_other_examples_are_refused_with_their_line(chat_tokenizer):
    with pytest.raises(InvalidRow, match=r"line 2: .*a label, true or false"):
        kto(chat_tokenizer).rows([*examples(answers(1)), (2, CompletionExample("a", "b"))])
