import pytest
import torch
from torch.nn.functional import cross_entropy

from core.models import heads
from core.models.heads import labelled_cross_entropy


@pytest.mark.parametrize("chunk_bytes", [1, 2**26], ids=["one token per chunk", "one chunk"])
def test_sum_gradient_and_hits_equal_plain_cross_entropy(chunk_bytes, monkeypatch):
    monkeypatch.setattr(heads, "CHUNK_BYTES", chunk_bytes)
    torch.manual_seed(0)
    hidden_LE = torch.randn(11, 8, requires_grad=True)
    head_VE = torch.randn(17, 8)
    targets_L = torch.randint(0, 17, (11,))
    sums = labelled_cross_entropy(hidden_LE, head_VE, targets_L)
    loss, correct = sums.loss, sums.correct
    assert len(sums.losses_L) == 11
    torch.testing.assert_close(sums.losses_L.sum(), sums.loss.detach())
    (loss / 11).backward()
    gradient, hidden_LE.grad = hidden_LE.grad, None

    logits_LV = hidden_LE @ head_VE.t()
    expected = cross_entropy(logits_LV, targets_L, reduction="sum")
    (expected / 11).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, hidden_LE.grad)
    assert correct == (logits_LV.argmax(-1) == targets_L).sum()


def test_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    hidden_LE = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    head_VE, targets_L = torch.randn(7, 5, dtype=torch.float64), torch.tensor([0, 3, 3, 6])
    assert torch.autograd.gradcheck(
        lambda hidden: labelled_cross_entropy(hidden, head_VE, targets_L).loss, (hidden_LE,)
    )


def test_sum_of_bf16_states_is_fp32():
    hidden_LE = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    head_VE = torch.randn(9, 8, dtype=torch.bfloat16)
    loss = labelled_cross_entropy(hidden_LE, head_VE, torch.tensor([1, 2, 3])).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert hidden_LE.grad.dtype == torch.bfloat16
