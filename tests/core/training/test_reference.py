"""The recipe against a plain loop of transformers, PEFT and PyTorch on padded batches."""

import copy

import peft
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, get_scheduler

from core.batching.order import derived_seed, steps_of_epoch
from core.batching.rows import Row
from core.datasets.read import read_examples
from core.models.attention import use_packed_attention
from core.models.load import load_tokenizer
from core.objectives.choose import choose_objective
from core.objectives.supervised import Supervised
from core.spec.events import StepDone
from core.spec.strategy import LoraSpec
from core.strategies.attach import attach
from core.training.recipe import train
from core.training.step import accumulate_gradients


def padded(rows):
    length = max(len(row.tokens) for row in rows)
    tokens_BT = torch.zeros(len(rows), length, dtype=torch.long)
    labels_BT = torch.full((len(rows), length), -100)
    mask_BT = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        tokens_T, trained_T = torch.tensor(row.tokens), torch.tensor(row.trained)
        tokens_BT[i, : len(tokens_T)] = tokens_T
        labels_BT[i, : len(tokens_T)] = torch.where(trained_T, tokens_T, -100)
        mask_BT[i, : len(tokens_T)] = 1
    return tokens_BT, labels_BT, mask_BT


def reference_losses(spec, workspace):
    objective, hyper = choose_objective(spec, load_tokenizer(spec.base)), spec.training
    rows = objective.rows(list(read_examples(workspace.train_file)))
    base = AutoModelForCausalLM.from_pretrained(spec.base.source, dtype=torch.float32)
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.strategy.rank,
        lora_alpha=int(spec.strategy.alpha),
        target_modules="all-linear",
    )
    torch.manual_seed(spec.seed)
    model = peft.get_peft_model(base, lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=hyper.learning_rate, weight_decay=0.0)
    steps = [
        step
        for epoch in range(1, hyper.epochs + 1)
        for step in steps_of_epoch(spec.seed, epoch, len(rows), hyper.batch_size)
    ]
    scheduler = get_scheduler(hyper.schedule, optimizer, 1, len(steps))
    losses = []
    for step in steps:
        tokens_BT, labels_BT, mask_BT = padded([rows[index] for index in step])
        logits_BTV = model(tokens_BT, attention_mask=mask_BT).logits
        loss = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, hyper.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_loss_curve_is_that_of_a_plain_padded_loop_with_peft(job, many_rows):
    spec = job(warmup_ratio=0.05, learning_rate=1e-2)
    ours = [e.loss for e in train(spec, many_rows, lambda: False) if isinstance(e, StepDone)]
    assert ours[-1] < 0.8 * ours[0]
    assert ours == pytest.approx(reference_losses(spec, many_rows), abs=1e-4)


ROWS = [
    Row(line, tuple(range(line, line + length)), (False, False) + (True,) * (length - 2))
    for line, length in enumerate((9, 17, 5, 12, 30, 8, 21, 11), start=1)
]

OBJECTIVE = Supervised(tokenizer=None)


def attached_model(tiny_model, dropout=0.0):
    model = tiny_model()
    use_packed_attention(model)
    torch.manual_seed(0)
    attached = attach(model, LoraSpec(rank=4, dropout=dropout), None)
    with torch.no_grad():
        for parameter in attached.parameters:
            parameter.normal_(std=0.1)
    return attached


@pytest.mark.parametrize("budget_tokens", [1, 30, 60])
def test_gradients_do_not_depend_on_the_split_into_micro_batches(tiny_model, budget_tokens):
    attached = attached_model(tiny_model)
    whole = accumulate_gradients(attached, OBJECTIVE, ROWS, 4096, 0, lambda: False)
    expected = {name: p.grad.clone() for name, p in attached.trainable.items()}
    attached.model.zero_grad()
    split = accumulate_gradients(attached, OBJECTIVE, ROWS, budget_tokens, 0, lambda: False)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (split.correct, split.targets) == (whole.correct, whole.targets)
    for name, parameter in attached.trainable.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_dropout_draws_from_the_seed_of_the_step_alone(tiny_model):
    attached = attached_model(tiny_model, dropout=0.3)
    losses = []
    for step, noise in ((1, 10), (1, 20), (2, 10)):
        torch.manual_seed(noise)
        seed = derived_seed(5, step)
        losses.append(accumulate_gradients(attached, OBJECTIVE, ROWS, 64, seed, lambda: False).loss)
    assert losses[0] == losses[1] != losses[2]


def test_targets_that_are_not_labelled_have_no_gradient(tiny_model):
    """Changing the last, unlabelled token of a row changes neither loss nor gradient."""
    attached = attached_model(tiny_model)
    row = Row(1, (5, 6, 7, 8, 9), (False, True, True, False, False))
    changed = copy.copy(row)
    object.__setattr__(changed, "tokens", (5, 6, 7, 8, 200))
    results = []
    for variant in (row, changed):
        sums = OBJECTIVE.loss(attached, [variant])
        assert sums.targets == 2
        sums.loss.backward()
        results.append((sums.loss.item(), [p.grad.clone() for p in attached.parameters]))
        attached.model.zero_grad()
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
