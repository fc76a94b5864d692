import torch
from hypothesis import given
from hypothesis import strategies as st

from core.batching.packing import pack
from core.batching.padding import pad
from core.batching.rows import SourceTargetRow

sizes = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=20)


def rows_of(row_sizes):
    return [
        SourceTargetRow(line, tuple(range(10, 10 + source)), tuple(range(50, 50 + target)))
        for line, (source, target) in enumerate(row_sizes)
    ]


@given(sizes, st.integers(2, 150))
def test_budget_counts_padding_and_every_row_comes_once(row_sizes, budget):
    micro_batches = pack(rows_of(row_sizes), budget)
    lines = sorted(row.line for batch in micro_batches for row in batch)
    assert lines == list(range(len(row_sizes)))
    for batch in micro_batches:
        padded = pad(batch, 0, 0, torch.device("cpu"))
        tokens = padded.source_tokens_BS.numel() + padded.decoder_tokens_BD.numel()
        assert tokens <= budget or len(batch) == 1


def test_rows_of_similar_size_stand_together():
    batches = pack(rows_of([(2, 2), (20, 20), (2, 3), (20, 19)]), 80)
    assert [[row.line for row in batch] for batch in batches] == [[1, 3], [2, 0]]


@given(sizes)
def test_decoder_reads_each_target_one_token_late(row_sizes):
    rows = rows_of(row_sizes)
    batch = pad(rows, start_token=3, pad_token=7, device=torch.device("cpu"))
    for index, row in enumerate(rows):
        tokens, mask = batch.source_tokens_BS[index].tolist(), batch.source_mask_BS[index]
        assert tokens[: len(row.source)] == list(row.source)
        assert set(tokens[len(row.source) :]) <= {7}
        assert mask.tolist() == [int(token != 7) for token in tokens]
        read = batch.decoder_tokens_BD[index].tolist()
        assert read[: len(row.target)] == [3, *row.target[:-1]]
        own = batch.rows_L == index
        assert batch.targets_L[own].tolist() == list(row.target)
        width = batch.decoder_tokens_BD.shape[1]
        positions = [index * width + position for position in range(len(row.target))]
        assert batch.predicting_L[own].tolist() == positions
