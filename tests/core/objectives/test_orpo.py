"""ORPO against TRL's trainer, and against TRL's own function of its loss."""

from types import SimpleNamespace

import pytest
import torch

from core.objectives.orpo import Orpo
from tests.core.objectives.test_dpo import assert_curves_are_equal, examples, texts, with_peft
from tests.core.objectives.trl_losses import answer_logps, from_trl, recorded_curve

pytestmark = pytest.mark.filterwarnings("ignore")  # those of TRL's experimental trainers


def test_loss_and_accuracy_curves_are_those_of_trl(
    tmp_path, adapted_of, tiny_model, chat_tokenizer, curve
):
    """TRL's cross entropy counts the prompt too, and its mean the batch: so one of each here."""
    data = [row | {"prompt": "="} for row in texts(12)]
    trl = from_trl("orpo", "ORPOTrainer", "ORPOConfig")
    expected = recorded_curve(
        trl,
        tmp_path,
        with_peft(tiny_model()),
        chat_tokenizer,
        data,
        beta=0.5,
        per_device_train_batch_size=1,
    )
    objective = Orpo(chat_tokenizer, beta=0.5)
    rows = objective.rows(examples(data))
    assert_curves_are_equal(curve(adapted_of(), objective, rows, 1, 1e-2), expected)


def test_loss_and_gradients_of_a_batch_are_those_of_trls_function(
    adapted_of, noisy, chat_tokenizer, gradients
):
    objective, adapted = Orpo(chat_tokenizer, beta=0.5), noisy(adapted_of())
    rows = objective.rows(examples(texts(6)))
    sums, found = gradients(adapted, objective, rows, budget_tokens=60)
    trainer, _ = from_trl("orpo", "ORPOTrainer", "ORPOConfig")
    self = SimpleNamespace(beta=0.5, accelerator=SimpleNamespace(device="cpu"))
    chosen_P, rejected_P = answer_logps(trainer, adapted.model, rows, average=True)
    ratios_P, *_ = trainer.odds_ratio_loss(self, chosen_P, rejected_P)
    losses_P = -chosen_P - ratios_P
    torch.testing.assert_close(sums.row_losses, losses_P.detach(), atol=1e-5, rtol=1e-5)
    adapted.model.zero_grad()
    losses_P.mean().backward()
    expected = {name: parameter.grad for name, parameter in adapted.trainable.items()}
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert sums.correct == (chosen_P > rejected_P).sum()


def test_a_certain_answer_has_a_finite_loss(adapted_of, chat_tokenizer, monkeypatch):
    objective = Orpo(chat_tokenizer, beta=0.5)
    rows = objective.rows(examples(texts(2)))
    certain_A = torch.zeros(4, requires_grad=True)
    monkeypatch.setattr("core.objectives.orpo.mean_log_probabilities", lambda *_: certain_A)
    loss = objective.loss(adapted_of(), rows).loss
    loss.backward()
    assert loss.isfinite() and certain_A.grad.isfinite().all()
