"""DPO against TRL's trainer, and against the formulas of the paper."""

import math
import random

import peft
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer

from core.adapters.adapted import AdaptedModel
from core.batching.rows import InvalidRow
from core.datasets.formats import ChatExample, CompletionExample, PreferenceExample
from core.models.attention import use_packed_attention
from core.objectives.answers import Reference
from core.objectives.dpo import Dpo


def texts(count, seed=0):
    """Prompts with two different answers each, as TRL takes them."""
    draw = random.Random(seed)

    def letters():
        return "".join(draw.choices("abcdefgh ", k=draw.randint(2, 20)))

    return [
        {"prompt": letters() + "=", "chosen": letters() + ".", "rejected": letters() + "!"}
        for _ in range(count)
    ]


def examples(rows):
    return [
        (
            line,
            PreferenceExample(
                CompletionExample(row["prompt"], row["chosen"]),
                CompletionExample(row["prompt"], row["rejected"]),
            ),
        )
        for line, row in enumerate(rows, start=1)
    ]


def dpo(tokenizer, beta=0.5, label_smoothing=0.0, continues=False):
    return Dpo(tokenizer, beta, label_smoothing, Reference(continues))


class RecordingTrainer(DPOTrainer):
    """Keeps the loss and the reward accuracy of every step."""

    def compute_loss(self, *arguments, **options):
        loss = super().compute_loss(*arguments, **options)
        accuracy = self._metrics["train"]["rewards/accuracies"][-1]
        self.recorded = [*getattr(self, "recorded", []), (loss.item(), accuracy)]
        return loss


def curve_of_trl(
    folder, model, tokenizer, rows, batch_size, learning_rate, reference=None, **options
):
    trainer = RecordingTrainer(
        model=model,
        ref_model=reference,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=DPOConfig(
            output_dir=folder,
            beta=0.5,
            per_device_train_batch_size=batch_size,
            num_train_epochs=1,
            learning_rate=learning_rate,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=0.0,
            max_length=None,
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **options,
        ),
    )
    trainer.train()
    return trainer.recorded


def with_peft(model):
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    return peft.get_peft_model(model, config)


def fully_trained(model):
    use_packed_attention(model)
    return AdaptedModel(model, dict(model.named_parameters()), None)


def assert_curves_are_equal(steps, expected):
    assert len(steps) == len(expected) == 12
    assert [s.loss / s.targets for s in steps] == pytest.approx([x for x, _ in expected], abs=1e-4)
    assert [s.correct / s.targets for s in steps] == [accuracy for _, accuracy in expected]
    assert len({accuracy for _, accuracy in expected}) > 1


# TRL's `sigmoid` knows no label smoothing; its unpaired AOT is the same loss where every batch has
# one pair, and does know it.
@pytest.mark.parametrize(
    ("batch_size", "label_smoothing", "options"),
    [
        (4, 0.0, {"loss_type": "sigmoid"}),
        (1, 0.2, {"loss_type": "aot_unpaired", "label_smoothing": 0.2}),
    ],
)
def test_loss_and_accuracy_curves_are_those_of_trl(
    tmp_path, adapted_of, tiny_model, chat_tokenizer, curve, batch_size, label_smoothing, options
):
    data, model = texts(12 * batch_size), with_peft(tiny_model())
    expected = curve_of_trl(str(tmp_path), model, chat_tokenizer, data, batch_size, 1e-2, **options)
    objective, adapted = dpo(chat_tokenizer, label_smoothing=label_smoothing), adapted_of()
    rows = objective.rows(examples(data))
    objective.prepare(adapted, rows, 200)
    assert_curves_are_equal(curve(adapted, objective, rows, batch_size, 1e-2), expected)


def test_curves_of_a_full_model_are_those_of_trl(tmp_path, tiny_model, chat_tokenizer, curve):
    data = texts(24)
    expected = curve_of_trl(
        str(tmp_path), tiny_model(), chat_tokenizer, data, 2, 1e-3, reference=tiny_model()
    )
    objective, adapted = dpo(chat_tokenizer), fully_trained(tiny_model())
    rows = objective.rows(examples(data))
    objective.prepare(adapted, rows, 200)
    assert_curves_are_equal(curve(adapted, objective, rows, 2, 1e-3), expected)


@torch.no_grad()
def answer_log_probability(model, row):
    logits_TV = model(torch.tensor([row.tokens]), segment_lengths=(row.length,)).logits[0]
    found_T = torch.log_softmax(logits_TV, -1)
    return sum(found_T[i - 1, row.tokens[i]].item() for i in range(row.length) if row.trained[i])


@pytest.mark.parametrize("continues", [False, True])
def test_reference_is_the_base_or_the_tuned_model_that_is_continued(
    adapted_of, noisy, chat_tokenizer, continues
):
    objective, adapted = dpo(chat_tokenizer, 0.3, 0.1, continues), noisy(adapted_of())
    rows = objective.rows(examples(texts(5)))
    objective.prepare(adapted, rows, 60)
    if continues:
        before = [
            [answer_log_probability(adapted.model, answer) for answer in (row.chosen, row.rejected)]
            for row in rows
        ]
    else:
        with adapted.off():
            before = [
                [answer_log_probability(adapted.model, a) for a in (row.chosen, row.rejected)]
                for row in rows
            ]
    noisy(adapted)
    now = [
        [answer_log_probability(adapted.model, answer) for answer in (row.chosen, row.rejected)]
        for row in rows
    ]
    margins = torch.tensor(
        [0.3 * ((n[0] - b[0]) - (n[1] - b[1])) for n, b in zip(now, before, strict=True)]
    )
    sums = objective.loss(adapted, rows)
    expected = -0.9 * logsigmoid(margins) - 0.1 * logsigmoid(-margins)
    torch.testing.assert_close(sums.row_losses, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(sums.loss, sums.row_losses.sum())
    assert (sums.targets, int(sums.correct)) == (5, int((margins > 0).sum()))


def test_untrained_adapter_loses_the_logarithm_of_two(adapted_of, chat_tokenizer):
    objective, adapted = dpo(chat_tokenizer), adapted_of()
    rows = objective.rows(examples(texts(3)))
    objective.prepare(adapted, rows, 4096)
    assert objective.loss(adapted, rows).loss.item() == pytest.approx(3 * math.log(2), abs=1e-5)


def test_reference_that_does_not_fit_into_memory_is_computed_in_smaller_parts(
    adapted_of, chat_tokenizer, monkeypatch
):
    rows = dpo(chat_tokenizer).rows(examples(texts(8)))
    room, sizes = max(row.length for row in rows), []
    hidden_states = AdaptedModel.hidden_states

    def in_little_memory(adapted, batch):
        sizes.append(sum(batch.segment_lengths))
        if sizes[-1] > room:
            raise MemoryError
        return hidden_states(adapted, batch)

    whole, split, adapted = dpo(chat_tokenizer), dpo(chat_tokenizer), adapted_of()
    whole.prepare(adapted, rows, 4096)
    monkeypatch.setattr(AdaptedModel, "hidden_states", in_little_memory)
    split.prepare(adapted, rows, 4096)
    assert max(sizes) > room
    monkeypatch.undo()
    losses = [objective.loss(adapted, rows).loss.item() for objective in (whole, split)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_gradients_do_not_depend_on_the_split_into_micro_batches(
    adapted_of, noisy, chat_tokenizer, gradients
):
    objective, adapted = dpo(chat_tokenizer), adapted_of()
    rows = objective.rows(examples(texts(8)))
    objective.prepare(adapted, rows, 4096)
    noisy(adapted)
    whole, expected = gradients(adapted, objective, rows)
    split, found = gradients(adapted, objective, rows, budget_tokens=1)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert split.correct == whole.correct
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_only_the_answers_are_counted(chat_tokenizer):
    question = {"role": "user", "content": "Why?"}
    earlier = {"role": "assistant", "content": "One.", "weight": 0}
    pair = PreferenceExample(
        *(
            ChatExample((question, earlier, question, {"role": "assistant", "content": answer}))
            for answer in ("Yes.", "No!")
        )
    )
    (row,) = dpo(chat_tokenizer).rows([(7, pair)])
    found = [
        chat_tokenizer.decode([t for t, on in zip(a.tokens, a.trained, strict=True) if on])
        for a in (row.chosen, row.rejected)
    ]
    assert found == ["Yes.<|im_end|>", "No!<|im_end|>"]
    assert (row.line, row.targets, row.length) == (7, 1, row.chosen.length + row.rejected.length)


def test_answers_that_become_the_same_tokens_are_refused(chat_tokenizer):
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    question = {"role": "user", "content": "Why?"}
    pair = PreferenceExample(
        *(
            ChatExample((question, {"role": "assistant", "content": answer}))
            for answer in ("No", "No ")
        )
    )
    with pytest.raises(InvalidRow, match="line 3: both answers"):
        dpo(chat_tokenizer).rows([(3, pair)])


def test_other_examples_are_refused_with_their_line(chat_tokenizer):
    with pytest.raises(InvalidRow, match=r"line 2: .*chosen and a rejected"):
        dpo(chat_tokenizer).rows([*examples(texts(1)), (2, CompletionExample("a", "b"))])
