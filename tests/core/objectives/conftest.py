import pytest
import torch

from core.models.attention import use_packed_attention
from core.spec.strategy import LoraSpec
from core.strategies.attach import attach
from core.training.step import accumulate_gradients

TINY = LoraSpec(rank=4, alpha=8)


def never():
    return False


@pytest.fixture
def adapted_of(tiny_model):
    """Return a builder: `adapted_of("llama")` is a tiny model with a fresh adapter of seed 1."""

    def build(model_type="llama", strategy=TINY, labels=None, dtype=torch.float32, **changes):
        model = tiny_model(model_type, labels=labels, **changes).to(dtype)
        use_packed_attention(model)
        torch.manual_seed(1)
        return attach(model, strategy, None)

    return build


@pytest.fixture
def noisy():
    """Return a function that moves an adapter away from its neutral start."""

    def add_noise(adapted, std=0.1):
        torch.manual_seed(2)
        with torch.no_grad():
            for parameter in adapted.parameters:
                parameter.add_(torch.randn_like(parameter), alpha=std)
        return adapted

    return add_noise


@pytest.fixture
def gradients():
    """Return a function: the sums of one step and the gradients that it leaves, by name."""

    def of(adapted, objective, rows, budget_tokens=4096):
        adapted.model.zero_grad()
        sums = accumulate_gradients(adapted, objective, rows, budget_tokens, 0, never)
        return sums, {name: p.grad.clone() for name, p in adapted.trainable.items()}

    return of


@pytest.fixture
def curve():
    """Return a function: the sums of steps over `batch_size` rows each, with plain AdamW."""

    def train(adapted, objective, rows, batch_size, learning_rate):
        optimizer = torch.optim.AdamW(adapted.parameters, lr=learning_rate, weight_decay=0.0)
        found = []
        for start in range(0, len(rows), batch_size):
            step = rows[start : start + batch_size]
            found.append(accumulate_gradients(adapted, objective, step, 100, 0, never))
            optimizer.step()
            optimizer.zero_grad()
        return found

    return train
