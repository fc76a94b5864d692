"""Sequence-to-sequence training against transformers' own loss of `labels`."""

import random

import pytest
import torch

from core.adapters.adapted import AdaptedModel
from core.batching.packing import pack
from core.batching.rows import InvalidRow
from core.datasets.formats import CompletionExample, TextExample
from core.objectives.seq2seq import SequenceToSequence

MODELS = ("t5", "bart")


def examples(count, seed=0):
    draw = random.Random(seed)

    def letters():
        return "".join(draw.choices("abcdefgh ", k=draw.randint(1, 30)))

    return [(line, CompletionExample(letters(), letters())) for line in range(1, count + 1)]


def fully_trained(model):
    return AdaptedModel(model, dict(model.named_parameters()), None)


def padded(rows, pad_token):
    sources = [torch.tensor(row.source) for row in rows]
    targets = [torch.tensor(row.target) for row in rows]
    ones = [torch.ones_like(source) for source in sources]
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(sources, True, pad_token),
        "attention_mask": pad(ones, True, 0),
        "labels": pad(targets, True, -100),
    }


@pytest.mark.parametrize("model_type", MODELS)
def test_loss_curve_is_that_of_a_plain_loop_of_transformers(
    tiny_model, tiny_tokenizer, curve, model_type
):
    objective = SequenceToSequence(tiny_tokenizer(model_type))
    rows = objective.rows(examples(48))
    reference = tiny_model(model_type).train()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, weight_decay=0.0)
    expected = []
    for start in range(0, len(rows), 4):
        step = rows[start : start + 4]
        loss = reference(**padded(step, reference.config.pad_token_id)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    steps = curve(fully_trained(tiny_model(model_type)), objective, rows, 4, 1e-3)
    assert expected[-1] < 0.9 * expected[0]
    assert [s.loss / s.targets for s in steps] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("model_type", MODELS)
def test_gradients_do_not_depend_on_the_split_into_micro_batches(
    tiny_model, tiny_tokenizer, gradients, model_type
):
    objective = SequenceToSequence(tiny_tokenizer(model_type))
    rows, adapted = objective.rows(examples(8)), fully_trained(tiny_model(model_type))
    whole, expected = gradients(adapted, objective, rows)
    split, found = gradients(adapted, objective, rows, budget_tokens=80)
    assert 1 < len(pack(rows, 80)) < 8
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (split.correct, split.targets) == (whole.correct, whole.targets)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_losses_of_rows_are_those_of_each_row_alone(tiny_model, tiny_tokenizer):
    objective = SequenceToSequence(tiny_tokenizer("bart"))
    rows, adapted = objective.rows(examples(5)), fully_trained(tiny_model("bart"))
    together = objective.loss(adapted, rows)
    alone = [objective.loss(adapted, [row]).loss.item() for row in rows]
    assert together.row_losses.tolist() == pytest.approx(alone, abs=1e-3)
    assert together.targets == sum(len(row.target) for row in rows)


def test_other_examples_are_refused_with_their_line(tiny_tokenizer):
    with pytest.raises(InvalidRow, match=r"line 2: .*needs a prompt with its completion"):
        SequenceToSequence(tiny_tokenizer("t5")).rows([*examples(1), (2, TextExample("a"))])
