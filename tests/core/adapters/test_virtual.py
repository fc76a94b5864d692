import torch

from core.adapters.virtual import Prefix

P, LAYERS, HEADS, SIZE = 3, 4, 2, 5


def prefix(order=range(LAYERS)):
    features = LAYERS * 2 * HEADS * SIZE
    return Prefix(torch.arange(P * features, dtype=torch.float32).view(P, -1), HEADS, SIZE, order)


def test_row_of_the_file_holds_keys_then_values_of_each_layer_head_by_head():
    made = prefix()
    row = made.weights[1]
    at = 0
    for layer in range(LAYERS):
        for states_KPD in made.states(torch.float32).layer(layer):
            assert states_KPD.shape == (HEADS, P, SIZE)
            for head in range(HEADS):
                assert torch.equal(states_KPD[head, 1], row[at : at + SIZE])
                at += SIZE
    assert at == len(row)


def test_order_says_which_pair_a_layer_takes():
    plain, shared = prefix().states(torch.float32), prefix(order=[0, 2, 0, 2]).states(torch.float32)
    for layer, pair in enumerate([0, 2, 0, 2]):
        for ours, expected in zip(shared.layer(layer), plain.layer(pair), strict=True):
            assert torch.equal(ours, expected)


def test_states_have_the_dtype_asked_for_and_lead_back_to_the_weights():
    made = prefix()
    key_KPD, value_KPD = made.states(torch.bfloat16).layer(1)
    assert key_KPD.dtype == value_KPD.dtype == torch.bfloat16
    key_KPD.sum().backward()
    trained = made.weights.grad.view(P, LAYERS, 2, HEADS, SIZE)
    assert torch.equal(trained[:, 1, 0], torch.ones(P, HEADS, SIZE))
    assert trained.sum() == P * HEADS * SIZE


def test_cache_is_filled_for_every_row():
    states = prefix().states(torch.float32)
    cache = states.cache(rows=2)
    assert cache.get_seq_length() == P
    for layer in range(LAYERS):
        for row in range(2):
            assert torch.equal(cache.layers[layer].keys[row], states.layer(layer)[0])
            assert torch.equal(cache.layers[layer].values[row], states.layer(layer)[1])
