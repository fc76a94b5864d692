import pytest
import torch

from core.models import heads
from core.models.log_probabilities import log_probabilities
from core.models.output_head import OutputHead


@pytest.mark.parametrize("chunk_tokens", [1, 100], ids=["one token per chunk", "one chunk"])
@pytest.mark.parametrize("head_is_trained", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_values_and_weighted_gradients_equal_those_of_log_softmax(
    chunk_tokens, head_is_trained, softcap, monkeypatch
):
    monkeypatch.setattr(heads, "chunk_tokens", lambda _: chunk_tokens)
    torch.manual_seed(0)
    hidden_LE = torch.randn(11, 8, requires_grad=True)
    head_VE = torch.randn(17, 8, requires_grad=head_is_trained)
    targets_L, weights_L = torch.randint(0, 17, (11,)), torch.randn(11)
    trained = [hidden_LE, head_VE] if head_is_trained else [hidden_LE]

    head = OutputHead(head_VE, torch.randn(17), scale=0.5, softcap=softcap)
    found_L = log_probabilities(hidden_LE, head, targets_L)
    found = torch.autograd.grad((found_L * weights_L).sum(), trained)
    logits_LV = 0.5 * hidden_LE @ head_VE.t() + head.bias_V
    if softcap is not None:
        logits_LV = softcap * torch.tanh(logits_LV / softcap)
    plain_L = torch.log_softmax(logits_LV, -1).gather(1, targets_L[:, None])[:, 0]
    expected = torch.autograd.grad((plain_L * weights_L).sum(), trained)
    torch.testing.assert_close(found_L, plain_L)
    torch.testing.assert_close(found, expected)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    hidden_LE = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    head_VE = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    targets_L = torch.tensor([0, 3, 3, 6])
    assert torch.autograd.gradcheck(
        lambda hidden, head: log_probabilities(hidden, OutputHead(head), targets_L),
        (hidden_LE, head_VE),
    )


def test_values_of_bf16_states_are_fp32():
    hidden_LE = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    head_VE = torch.randn(9, 8, dtype=torch.bfloat16)
    found_L = log_probabilities(hidden_LE, OutputHead(head_VE), torch.tensor([1, 2, 3]))
    found_L.sum().backward()
    assert found_L.dtype == torch.float32
    assert hidden_LE.grad.dtype == torch.bfloat16
