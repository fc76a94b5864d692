"""Rows of keys and values hold what the blocks hold, whoever comes and goes."""

import torch

from core.models.block_cache import BlockCache
from core.models.dense_rows import FEWEST_ROWS, SHARE_OF_CACHE, DenseCache, DenseRows, Held
from tests.core.tiny import tiny_model

BLOCKS, BLOCK_TOKENS, LAYERS = 64, 4, 2
CPU = torch.device("cpu")


def make_cache(blocks: int = BLOCKS) -> BlockCache:
    """A cache in which every number is another one."""
    cache = BlockCache(tiny_model("llama").config, blocks, BLOCK_TOKENS, torch.float32, CPU)
    assert len(cache.keys) == LAYERS
    for number, states in enumerate((*cache.keys, *cache.values)):
        states.copy_(torch.arange(states.numel()).view(states.shape) + number / 8)
    return cache


def paged(states: torch.Tensor, held: Held) -> torch.Tensor:
    """Keys or values of a sequence as its blocks hold them, (J, K, D)."""
    return states[list(held.blocks)].flatten(0, 1)[: held.places]


def assert_rows_hold(rows: DenseRows, cache: BlockCache, order, sequences) -> None:
    for row, owner in enumerate(order):
        held = sequences[owner]
        for layer in range(LAYERS):
            key_KDJ = rows.keys[layer][row, :, :, : held.places]
            value_KJD = rows.values[layer][row, :, : held.places]
            assert torch.equal(key_KDJ.permute(2, 0, 1), paged(cache.keys[layer], held))
            assert torch.equal(value_KJD.transpose(0, 1), paged(cache.values[layer], held))


def add_token(rows: DenseRows, cache: BlockCache, order, sequences) -> dict[str, Held]:
    """Let each sequence read one place, which its blocks hold already; return where they stand."""
    places_B = torch.tensor([sequences[owner].places for owner in order])
    grown = {owner: Held(held.blocks, held.places + 1) for owner, held in sequences.items()}
    for layer in range(LAYERS):
        key_BKD, value_BKD = (
            torch.stack([paged(states[layer], grown[owner])[-1] for owner in order])
            for states in (cache.keys, cache.values)
        )
        rows.add(layer, places_B, key_BKD, value_BKD)
    return grown


def test_rows_follow_sequences_that_come_go_and_step_back():
    cache = make_cache()
    rows = DenseRows(cache, 16)
    sequences = {
        name: Held([8 + 4 * n, 3 + n, 40 + n, 50 + n], 5 + n) for n, name in enumerate("abcd")
    }
    leave = {3: "a", 4: "d"}
    for step in range(6):
        if step in leave:
            del sequences[leave[step]]
        if step == 2:
            sequences["e"] = Held([60, 61, 62], 7)
        if step == 5:  # it stepped back, and has read less again
            sequences["b"] = Held(sequences["b"].blocks, 3)
        order = rows.seat(sequences)
        assert sorted(order) == sorted(sequences)
        assert_rows_hold(rows, cache, order, sequences)
        sequences = add_token(rows, cache, order, sequences)
        assert_rows_hold(rows, cache, order, sequences)


def test_rows_grow_and_keep_what_they_hold():
    cache = make_cache()
    rows = DenseRows(cache, 8)
    sequences = {number: Held([number], 2) for number in range(FEWEST_ROWS)}
    sequences = add_token(rows, cache, rows.seat(sequences), sequences)
    sequences |= {number: Held([number], 3) for number in range(FEWEST_ROWS, 3 * FEWEST_ROWS)}
    order = rows.seat(sequences)
    assert len(order) == 3 * FEWEST_ROWS
    assert_rows_hold(rows, cache, order, sequences)


def test_a_sequence_keeps_its_row_without_being_copied_again():
    cache = make_cache()
    rows = DenseRows(cache, 16)
    sequences = {"a": Held([1, 2], 4)}
    sequences = add_token(rows, cache, rows.seat(sequences), sequences)
    cache.keys[0].zero_()
    rows.seat(sequences)
    assert rows.keys[0][0, :, :, :5].all(), "it was copied from its blocks again"


def test_rows_take_a_share_of_the_memory_and_short_ones_come_first():
    cache = make_cache(blocks=SHARE_OF_CACHE * FEWEST_ROWS * 16 // BLOCK_TOKENS)
    dense = DenseCache(cache)
    assert dense.rows({16: FEWEST_ROWS}).keys() == {16}
    assert dense.rows({16: FEWEST_ROWS + 1}).keys() == set()
    assert dense.rows({16: 2, 8: 1}).keys() == {8}
    assert dense.rows({}) == {}
