import torch
from hypothesis import given
from hypothesis import strategies as st

from core.batching.order import derived_seed, row_order, steps_of_epoch
from core.batching.packing import collate, pack
from core.batching.rows import Row


def row(number, length):
    return Row(number, (number,) * length, (False,) * (length - 1) + (True,))


lengths = st.lists(st.integers(2, 50), min_size=1, max_size=30)


@given(lengths, st.integers(2, 120))
def test_every_row_is_packed_once_and_the_budget_holds(row_lengths, budget):
    rows = [row(number, length) for number, length in enumerate(row_lengths)]
    micro_batches = pack(rows, budget)
    assert sorted(r.line for batch in micro_batches for r in batch) == list(range(len(rows)))
    for batch in micro_batches:
        assert sum(len(r.tokens) for r in batch) <= budget or len(batch) == 1


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 60), st.integers(1, 12))
def test_every_epoch_takes_every_row_once_in_its_own_steps(seed, epoch, rows, batch_size):
    steps = steps_of_epoch(seed, epoch, rows, batch_size)
    assert sorted(index for step in steps for index in step) == list(range(rows))
    assert all(len(step) == batch_size for step in steps[:-1])
    assert steps == steps_of_epoch(seed, epoch, rows, batch_size)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [row_order(seed, epoch, 50) for seed in (1, 2) for epoch in (1, 2)]
    assert len({tuple(order) for order in orders}) == 4


def test_derived_seeds_depend_on_the_order_of_their_parts():
    assert derived_seed(1, 2) != derived_seed(2, 1)
    assert 0 <= derived_seed(2**31 - 1, 10**6) < 2**63


@given(lengths)
def test_collated_labels_are_the_trained_tokens_and_their_predecessors(row_lengths):
    rows = [
        Row(i, tuple(range(i * 100, i * 100 + n)), (False,) + (True,) * (n - 1))
        for i, n in enumerate(row_lengths)
    ]
    batch = collate(rows, torch.device("cpu"))
    tokens_T = batch.tokens_1T[0]
    assert batch.targets_L.tolist() == [token for r in rows for token in r.tokens[1:]]
    assert tokens_T[batch.predicting_L].tolist() == [token for r in rows for token in r.tokens[:-1]]
    assert batch.positions_1T[0].tolist() == [p for r in rows for p in range(len(r.tokens))]
    assert batch.segment_lengths == tuple(row_lengths)
