import pytest
import torch

from core.catalog.families import FAMILIES
from core.models import attention
from core.models.attention import use_packed_attention

LENGTHS = (7, 23, 1, 12)


def packed(tokens_by_row):
    return {
        "input_ids": torch.cat(tokens_by_row)[None],
        "position_ids": torch.cat([torch.arange(len(t)) for t in tokens_by_row])[None],
        "segment_lengths": tuple(len(t) for t in tokens_by_row),
        "use_cache": False,
    }


def documents(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (n,), generator=generator) for n in LENGTHS]


@pytest.mark.parametrize("longest_stored", [512, 0], ids=["stored", "fused"])
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_packed_logits_and_gradients_equal_single_documents(
    tiny_model, model_type, longest_stored, monkeypatch
):
    monkeypatch.setattr(attention, "LONGEST_STORED_SEGMENT", longest_stored)
    model = tiny_model(model_type)
    rows = documents()
    single = [model(row[None]).logits[0] for row in rows]
    torch.cat(single).square().mean().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    use_packed_attention(model)
    together = model(**packed(rows)).logits[0]
    together.square().mean().backward()
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model_type", ["mistral", "qwen2", "qwen3"])
def test_sliding_window_holds_inside_each_document(tiny_model, model_type):
    changes = {"sliding_window": 5}
    if model_type != "mistral":
        changes |= {"use_sliding_window": True, "max_window_layers": 1}
    model = tiny_model(model_type, **changes)
    rows = documents()
    single = torch.cat([model(row[None]).logits[0] for row in rows])
    use_packed_attention(model)
    torch.testing.assert_close(model(**packed(rows)).logits[0], single, rtol=1e-4, atol=1e-5)


def test_other_documents_cannot_change_a_documents_logits(tiny_model):
    model = tiny_model("llama")
    use_packed_attention(model)
    rows = documents()
    before = model(**packed(rows)).logits[0]
    rows[0] = rows[0].flip(0)
    after = model(**packed(rows)).logits[0]
    assert torch.equal(before[LENGTHS[0] :], after[LENGTHS[0] :])
    assert not torch.equal(before[: LENGTHS[0]], after[: LENGTHS[0]])
