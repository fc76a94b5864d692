import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.training.tensor_tree import flatten, unflatten

TREE = {
    "moments": {0: {"step": torch.tensor(3.0), "mean": torch.arange(4, dtype=torch.uint8)}},
    "betas": (0.9, 0.1 + 0.2),
    "names": ["a", None, True],
    3: float("inf"),
}


def test_tree_survives_json_with_its_types():
    plain, tensors = flatten(TREE)
    again = unflatten(json.loads(json.dumps(plain)), tensors)
    found, expected = again["moments"][0], TREE["moments"][0]
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert found["mean"].dtype == torch.uint8
    assert {key: again[key] for key in again if key != "moments"} == {
        key: TREE[key] for key in TREE if key != "moments"
    }


def test_tensors_are_copied_only_where_they_share_memory(tmp_path):
    table = torch.arange(4.0)
    _, tensors = flatten([table, torch.zeros(2), table])
    assert [tensor.data_ptr() == table.data_ptr() for tensor in tensors.values()] == [
        True,
        False,
        False,
    ]
    save_file(tensors, tmp_path / "saved.safetensors")
    assert torch.equal(load_file(tmp_path / "saved.safetensors")["2"], table)


def test_what_has_no_place_is_refused():
    with pytest.raises(TypeError, match="set cannot be saved"):
        flatten({"names": {"a"}})
