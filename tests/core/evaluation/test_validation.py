from functools import partial

import pytest
import torch

from core.batching.packing import collate
from core.batching.rows import Row
from core.evaluation.validation import validate
from core.models.attention import use_packed_attention
from core.objectives.supervised import supervised_loss

ROWS = [Row(n, tuple(range(n, n + 3 * n)), (False,) + (True,) * (3 * n - 1)) for n in (1, 2, 5)]


@pytest.fixture
def model(tiny_model):
    model = tiny_model()
    use_packed_attention(model)
    return model


@pytest.mark.parametrize("budget_tokens", [1, 1000])
def test_every_labelled_token_counts_the_same(model, budget_tokens):
    result = validate(model, ROWS, budget_tokens, partial(supervised_loss, model), lambda: False)
    sums = [supervised_loss(model, collate([row], torch.device("cpu"))) for row in ROWS]
    weight = sum(s.weight for s in sums)
    assert weight == sum(row.labelled_tokens for row in ROWS)
    assert result.loss == pytest.approx(sum(s.loss.item() for s in sums) / weight, rel=1e-5)
    assert result.token_accuracy == sum(int(s.correct) for s in sums) / weight


def test_stop_ends_it_without_a_result(model):
    assert validate(model, ROWS, 1000, partial(supervised_loss, model), lambda: True) is None
