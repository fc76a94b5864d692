"""Pretraining of the tiny base on CPU: bf16 compute, fp32 masters, Muon for the hidden matrices.

Shapes: B sequences, T tokens of one, D model width, V vocabulary.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM


@dataclass(frozen=True)
class Schedule:
    """How long to train and how fast: warm-up, a plateau, then a linear decay to zero.

    The plateau has no end built in, so its checkpoints can be decayed early or trained on.
    """

    steps: int
    warmup_steps: int = 60
    decay_share: float = 0.4
    muon_learning_rate: float = 0.015
    adamw_learning_rate: float = 4e-3

    def scale(self, step: int) -> float:
        """The factor, from 0 to 1, on both learning rates at `step`, counted from 0."""
        left = (self.steps - step) / (self.steps * self.decay_share)
        return min(1.0, (step + 1) / self.warmup_steps, left)


SEQUENCE_TOKENS = 512
SEQUENCES_PER_STEP = 12
STEPS_BETWEEN_REPORTS = 25
STEPS_BETWEEN_CHECKPOINTS = 250


def pretrain(
    config: LlamaConfig, documents: list[list[int]], schedule: Schedule, folder: Path
) -> None:
    """Train a new model on `documents` of token ids and save it, in bf16, to `folder`."""
    torch.manual_seed(0)
    masters = initialized(config)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    parameters = list(zip(model.parameters(), masters.parameters(), strict=True))
    optimizers = make_optimizers(masters, schedule)
    copy_masters(parameters)

    started, mean_loss = time.monotonic(), None
    for step, ids_BT in zip(range(schedule.steps), batches(documents), strict=False):
        for optimizer, learning_rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * schedule.scale(step)
        loss = next_token_loss(model, ids_BT)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, master in parameters:
            assert parameter.grad is not None
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        copy_masters(parameters)

        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
        if (step + 1) % STEPS_BETWEEN_REPORTS == 0:
            rate = (step + 1) * ids_BT.numel() / (time.monotonic() - started)
            print(f"step {step + 1} of {schedule.steps}: loss {mean_loss:.3f}, {rate:.0f} tokens/s")
        if (step + 1) % STEPS_BETWEEN_CHECKPOINTS == 0:
            model.save_pretrained(folder)
    model.save_pretrained(folder)


def initialized(config: LlamaConfig) -> LlamaForCausalLM:
    """A new fp32 model whose matrices keep the scale of what passes through them."""
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed" in name:
                parameter.normal_(0, 0.02)
            elif parameter.ndim == 2:
                parameter.normal_(0, 0.7 * parameter.shape[1] ** -0.5)
    return model


def make_optimizers(
    model: LlamaForCausalLM, schedule: Schedule
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon (https://kellerjordan.github.io/posts/muon/) for the hidden matrices, AdamW for the
    embedding and the norms; each with its peak learning rate."""
    hidden: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in model.named_parameters():
        (hidden if parameter.ndim == 2 and "embed" not in name else rest).append(parameter)
    muon_rate, adamw_rate = schedule.muon_learning_rate, schedule.adamw_learning_rate
    muon = torch.optim.Muon(hidden, lr=muon_rate, momentum=0.95, weight_decay=0.01)
    adamw = torch.optim.AdamW(rest, lr=adamw_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [(muon, muon_rate), (adamw, adamw_rate)]


@torch.no_grad()
def copy_masters(parameters: list[tuple[Tensor, Tensor]]) -> None:
    """Round each fp32 master into the bf16 parameter that computes."""
    for parameter, master in parameters:
        parameter.copy_(master)


def next_token_loss(model: LlamaForCausalLM, ids_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each token given those before it in its sequence."""
    hidden_BTD = model.model(input_ids=ids_BT, use_cache=False).last_hidden_state
    logits_NV = model.lm_head(hidden_BTD[:, :-1].flatten(0, 1)).float()
    return functional.cross_entropy(logits_NV, ids_BT[:, 1:].flatten())


def batches(documents: list[list[int]]) -> Iterator[Tensor]:
    """Endless `ids_BT`: each pass joins the documents in a new order and cuts the whole."""
    while True:
        order = torch.randperm(len(documents)).tolist()
        ids = torch.tensor([token for index in order for token in documents[index]])
        whole = len(ids) // SEQUENCE_TOKENS
        ids_NT = ids[: whole * SEQUENCE_TOKENS].view(whole, SEQUENCE_TOKENS)
        ids_NT = ids_NT[torch.randperm(whole)]
        for first in range(0, whole - SEQUENCES_PER_STEP + 1, SEQUENCES_PER_STEP):
            yield ids_NT[first : first + SEQUENCES_PER_STEP]
