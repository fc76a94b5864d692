"""SimPO against TRL's CPO trainer with that loss, and against TRL's own function of it."""

from types import SimpleNamespace

import pytest
import torch

from core.objectives.simpo import Simpo
from tests.core.objectives.test_dpo import assert_curves_are_equal, examples, texts, with_peft
from tests.core.objectives.trl_losses import answer_logps, from_trl, recorded_curve

pytestmark = pytest.mark.filterwarnings("ignore")  # those of TRL's experimental trainers


def test_loss_and_accuracy_curves_are_those_of_trl(
    tmp_path, adapted_of, tiny_model, chat_tokenizer, curve
):
    data = texts(48)
    expected = recorded_curve(
        from_trl("cpo", "CPOTrainer", "CPOConfig"),
        tmp_path,
        with_peft(tiny_model()),
        chat_tokenizer,
        data,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=2.0,
        simpo_gamma=1.0,
        per_device_train_batch_size=4,
    )
    objective = Simpo(chat_tokenizer, beta=2.0, gamma=1.0)
    rows = objective.rows(examples(data))
    assert_curves_are_equal(curve(adapted_of(), objective, rows, 4, 1e-2), expected)


def test_loss_and_gradients_of_a_batch_are_those_of_trls_function(
    adapted_of, noisy, chat_tokenizer, gradients
):
    objective, adapted = Simpo(chat_tokenizer, beta=2.5, gamma=0.7), noisy(adapted_of())
    rows = objective.rows(examples(texts(6)))
    sums, found = gradients(adapted, objective, rows, budget_tokens=60)
    (trainer,) = from_trl("cpo", "CPOTrainer")
    self = SimpleNamespace(
        loss_type="simpo",
        beta=2.5,
        simpo_gamma=0.7,
        alpha=0.0,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    chosen_P, rejected_P = answer_logps(trainer, adapted.model, rows, average=True)
    losses_P, *_ = trainer.cpo_loss(self, chosen_P, rejected_P)
    torch.testing.assert_close(sums.row_losses, losses_P.detach(), atol=1e-5, rtol=1e-5)
    adapted.model.zero_grad()
    losses_P.mean().backward()
    expected = {name: parameter.grad for name, parameter in adapted.trainable.items()}
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert sums.correct == (chosen_P > rejected_P).sum()
