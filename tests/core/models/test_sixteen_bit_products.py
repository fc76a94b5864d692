"""Products on a CPU without 16-bit instructions; here installed whatever the CPU has.

The kernels are those of the whole process, so each test runs them in a process of its own.
"""

import subprocess
import sys
from textwrap import dedent

import pytest
import torch

from core.models import sixteen_bit_products
from core.models.frozen import FrozenMatrix
from core.models.output_head import PREPACKED_STATES, OutputHead
from core.models.sixteen_bit_products import ensure_products, has_products, product_dtype

CPU = torch.device("cpu")


def run_installed(code: str) -> str:
    """Run code in a process in which the products are installed; return what it prints."""
    prelude = """
        import torch
        from core.models.sixteen_bit_products import install
        torch.manual_seed(0)
        def data(dtype):
            torch.manual_seed(0)
            return [torch.randn(*size).to(dtype) for size in ((9, 33), (33, 17), (17,))]
        install(frozenset({torch.bfloat16, torch.float16}))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(prelude) + dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_round_once(dtype):
    run_installed(f"""
        dtype = torch.{dtype}
        x, w, b = data(dtype)
        wide = x.float(), w.float(), b.float()
        out = torch.full((9, 17), 7.0, dtype=dtype)
        cases = [
            (torch.mm(x, w), wide[0] @ wide[1]),
            (x @ w.t().contiguous().t(), wide[0] @ wide[1]),
            (torch.mm(x, w, out=out), wide[0] @ wide[1]),
            (torch.mm(x, w, out=x.new_empty(0)), wide[0] @ wide[1]),
            (torch.addmm(b, x, w, beta=2, alpha=0.5), 2 * wide[2] + 0.5 * wide[0] @ wide[1]),
            (x.new_ones(9, 17).addmm_(x, w), 1 + wide[0] @ wide[1]),
            (torch.nn.functional.linear(x[None], w.t(), b)[0], wide[2] + wide[0] @ wide[1]),
            (torch.bmm(x[None], w[None])[0], wide[0] @ wide[1]),
            (torch.baddbmm(b, x[None], w[None])[0], wide[2] + wide[0] @ wide[1]),
            (x.new_ones(1, 9, 17).baddbmm_(x[None], w[None])[0], 1 + wide[0] @ wide[1]),
        ]
        for number, (found, expected) in enumerate(cases):
            assert found.dtype == dtype, number
            torch.testing.assert_close(found, expected.to(dtype), rtol=2**-7, atol=1e-6)
        assert (out == cases[0][0]).all()
    """)


def test_other_formats_are_those_of_pytorch():
    run_installed("""
        for dtype in (torch.float32, torch.float64):
            x, w, b = data(dtype)
            found = torch.addmm(b, x, w)
            exact = (b.double() + x.double() @ w.double()).to(dtype)
            assert found.dtype == dtype
            torch.testing.assert_close(found, exact)
            torch.testing.assert_close(torch.mm(x, w, out=x.new_empty(9, 17)), found - b)
        numbers = torch.arange(6).view(2, 3)
        assert (numbers @ numbers.t()).tolist() == [[5, 14], [14, 50]]
    """)


def test_gradients_and_autocast_use_them():
    run_installed("""
        layer = torch.nn.Linear(33, 17).to(torch.bfloat16)
        x, *_ = data(torch.bfloat16)
        layer(x.requires_grad_()).sum().backward()
        torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(17, 33))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.mm(x.float(), layer.weight.t().float()).dtype == torch.bfloat16
        with torch.inference_mode():
            assert layer(x).dtype == torch.bfloat16
    """)


def test_installed_only_where_the_device_lacks_them(monkeypatch):
    installed = []
    monkeypatch.setattr(sixteen_bit_products, "install", installed.append)
    ensure_products(CPU, torch.float32)
    ensure_products(torch.device("cuda"), torch.bfloat16)
    assert not installed
    ensure_products(CPU, torch.bfloat16)
    assert bool(installed) == (not has_products(CPU, torch.bfloat16))
    for formats in installed:
        assert not any(has_products(CPU, dtype) for dtype in formats)


@pytest.fixture(params=[False, True], ids=["with instructions", "without instructions"])
def has_instructions(request, monkeypatch):
    for module in ("sixteen_bit_products", "frozen", "kernel_lengths"):
        monkeypatch.setattr(f"core.models.{module}.has_products", lambda *_: not request.param)
    return not request.param


def test_what_multiplies_in_fp32_returns_16_bits(has_instructions):
    torch.manual_seed(0)
    assert product_dtype(CPU, torch.bfloat16) == (
        torch.bfloat16 if has_instructions else torch.float32
    )
    x_TI, weight_OI = torch.randn(5, 8).bfloat16(), torch.randn(6, 8).bfloat16()
    frozen = FrozenMatrix(weight_OI, None, prepack=True)
    assert (frozen._packed is None) == has_instructions
    expected_TO = x_TI.float() @ weight_OI.float().t()
    found_TO = frozen.forward(x_TI)
    assert found_TO.dtype == torch.bfloat16
    torch.testing.assert_close(found_TO.float(), expected_TO, rtol=2**-6, atol=2**-6)
    grad_TI = frozen.backward(found_TO)
    assert grad_TI.dtype == torch.bfloat16
    expected_TI = found_TO.float() @ weight_OI.float()
    torch.testing.assert_close(grad_TI.float(), expected_TI, rtol=2**-6, atol=2**-5)


@pytest.mark.parametrize("states", [3, PREPACKED_STATES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("has_instructions")
def test_a_head_prepared_for_states_gives_the_same_logits(states, dtype):
    torch.manual_seed(0)
    hidden_LE, weight_VE = torch.randn(states, 8).to(dtype), torch.randn(40, 8).to(dtype)
    head = OutputHead(weight_VE, torch.randn(40), scale=0.5, softcap=3.0)
    prepared = head.for_states(hidden_LE)
    exact_LV = 0.5 * hidden_LE.double() @ weight_VE.double().t()
    assert head.bias_V is not None
    exact_LV = 3.0 * torch.tanh((exact_LV + head.bias_V.to(dtype).double()) / 3.0)
    logits_LV = prepared.logits(hidden_LE)
    assert logits_LV.dtype == dtype
    step = torch.finfo(dtype).eps * 4
    torch.testing.assert_close(logits_LV.double(), exact_LV, rtol=step, atol=2 * step)
    grad_LE = prepared.hidden_gradient(logits_LV)
    assert grad_LE.dtype == dtype
    expected_LE = 0.5 * logits_LV.double() @ weight_VE.double()
    torch.testing.assert_close(grad_LE.double(), expected_LE, rtol=step, atol=16 * step)
    assert (prepared.packed is not None) == (
        states >= PREPACKED_STATES and prepared.weight_VE.dtype is torch.float32
    )
