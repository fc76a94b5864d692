import pytest

from core.adapters.adapted import AdaptedModel
from core.batching.rows import Row
from core.evaluation.validation import validate
from core.models.attention import use_packed_attention
from core.objectives.supervised import Supervised

ROWS = [Row(n, tuple(range(n, n + 3 * n)), (False,) + (True,) * (3 * n - 1)) for n in (1, 2, 5)]


OBJECTIVE = Supervised(tokenizer=None)


@pytest.fixture
def adapted(tiny_model):
    model = tiny_model()
    use_packed_attention(model)
    return AdaptedModel(model, {}, None)


@pytest.mark.parametrize("budget_tokens", [1, 1000])
def test_every_labelled_token_counts_the_same(adapted, budget_tokens):
    result = validate(adapted, OBJECTIVE, ROWS, budget_tokens, lambda: False)
    sums = [OBJECTIVE.loss(adapted, [row]) for row in ROWS]
    weight = sum(s.targets for s in sums)
    assert weight == sum(row.targets for row in ROWS)
    assert result.loss == pytest.approx(sum(s.loss.item() for s in sums) / weight, rel=1e-5)
    assert result.accuracy == sum(int(s.correct) for s in sums) / weight


def test_stop_ends_it_without_a_result(adapted):
    assert validate(adapted, OBJECTIVE, ROWS, 1000, lambda: True) is None
