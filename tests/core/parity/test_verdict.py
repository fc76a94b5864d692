"""What is said of an engine's figures: within bounds, or what differs."""

import math

import pytest
from worker.verdict import judge

from core.spec.generation import TokenPrompt
from core.spec.parity import Ablation, ParityReference, ReplayedRow, ReplayedText
from worker.replay import Replies, Reply

IDS = (5, 6, 7)


def row(line: int, *logprobs: float) -> ReplayedRow:
    return ReplayedRow(
        line=line,
        prompt=TokenPrompt(tokens=IDS),
        prompt_ids=IDS,
        answer=tuple(range(len(logprobs))),
        logprobs=(None, None, None, *logprobs),
    )


def reference(precision: str = "fp32", **more) -> ParityReference:
    rows = row(3, -1.0, -2.0), row(8, -3.0)
    return ParityReference.model_validate({"precision": precision, "rows": rows, **more})


def said(*figures: tuple[float, ...], precision: str | None = "fp32") -> Replies:
    return Replies(precision, tuple(Reply(IDS, each) for each in figures))  # type: ignore[arg-type]


def test_equal_figures_pass_with_their_numbers() -> None:
    parity = judge(reference(), said((-1.0, -2.0005), (-3.0001,)))
    assert (parity.status, parity.rows, parity.tokens) == ("passed", 2, 3)
    assert parity.token_rows == 2, "so nothing is known about the template"
    assert parity.max_difference_nats == pytest.approx(5e-4)
    assert parity.mean_difference_nats == pytest.approx(2e-4)
    assert (parity.max_allowed_nats, parity.mean_allowed_nats) == (1e-3, 1e-3)


def test_one_token_beyond_the_bound_fails_and_its_line_is_named() -> None:
    parity = judge(reference(), said((-1.0, -2.0), (-3.0011,)))
    assert (parity.status, parity.differs) == ("failed", "numbers")
    assert parity.reason == (
        "Log-probabilities differ from training's by up to 0.0011 nat (line 8; allowed 0.001) and "
        "by 0.000367 nat on average (allowed 0.001)."
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("figures", "status"),
    [
        (((-1.0, -2.05), (-3.0,)), "passed"),
        (((-1.0, -2.31), (-3.0,)), "failed"),  # the maximum
        (((-1.03, -2.03), (-3.03,)), "failed"),  # the mean
    ],
)
def test_16_bits_are_bounded_in_maximum_and_mean(precision, figures, status) -> None:
    parity = judge(reference(precision), said(*figures, precision=precision))
    assert parity.status == status


@pytest.mark.parametrize(("trained", "served"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_coarser_format_gives_the_bound_and_is_named_when_it_does_not_do(trained, served) -> None:
    near, far = (((-1.0, -2.05), (-3.0,)), ((-1.5, -2.0), (-3.0,)))
    passed = judge(reference(trained), said(*near, precision=served))
    assert (passed.status, passed.engine_precision) == ("passed", served)
    failed = judge(reference(trained), said(*far, precision=served))
    assert (failed.status, failed.differs) == ("failed", "precision")
    assert failed.reason is not None and f"trained in {trained} and is served in {served}" in (
        failed.reason
    )


def test_engine_that_does_not_tell_its_format_is_taken_to_have_that_of_training() -> None:
    exact = judge(reference(), said((-1.0, -2.0), (-3.0,), precision=None))
    assert (exact.status, exact.engine_precision) == ("passed", None)
    assert judge(reference(), said((-1.0, -2.05), (-3.0,), precision=None)).differs == "numbers"


@pytest.mark.parametrize(
    ("ids", "place"), [((5, 6, 9), 2), ((5, 6), 2), ((5, 6, 7, 8), 3), ((1, 6, 7), 0)]
)
def test_other_tokens_are_a_difference_of_the_template(ids: tuple[int, ...], place: int) -> None:
    replies = Replies("fp32", (Reply(IDS, (-1.0, -2.0)), Reply(ids, ())))
    parity = judge(reference(), replies)
    assert (parity.status, parity.differs) == ("failed", "template")
    assert parity.reason is not None
    assert "line 8" in parity.reason and f"from token {place} on" in parity.reason


def test_modules_without_which_the_model_says_the_same_are_named() -> None:
    ablations = (
        Ablation(modules="q_proj", count=4, figures=(-1.5, -2.5)),
        Ablation(modules="lm_head", count=1, figures=(-4.0, -5.0)),
    )
    told = reference(ablations=ablations)
    parity = judge(told, said((-1.5, -2.5), (-9.0,)))
    assert (parity.status, parity.differs) == ("failed", "module")
    assert parity.reason is not None
    assert parity.reason.startswith("The engine ignores q_proj (4 trained modules): it answers")
    one = judge(told, said((-4.0, -5.0), (-9.0,)))
    assert one.reason is not None and "lm_head (1 trained module)" in one.reason
    assert judge(told, said((-1.5, -2.6), (-9.0,))).differs == "numbers"


def test_figure_that_is_no_number_does_not_pass() -> None:
    assert judge(reference(), said((-1.0, math.nan), (-3.0,))).status == "failed"


def test_labels_are_compared_as_tokens_are() -> None:
    text = ReplayedText(line=2, text="a", logprobs={"x": -0.1, "y": -2.3})
    told = ParityReference(precision="fp32", rows=(text,))
    passed = judge(told, Replies("fp32", (Reply((), (-0.1, -2.3)),)))
    assert (passed.status, passed.tokens) == ("passed", 2)
    failed = judge(told, Replies("fp32", (Reply((), (-0.1, -2.5)),)))
    assert (failed.status, failed.differs) == ("failed", "numbers")


def test_gap_of_a_quantised_trainer_is_told_and_not_judged() -> None:
    parity = judge(reference(quantisation_gap_nats=7.5), said((-1.0, -2.0), (-3.0,)))
    assert (parity.status, parity.quantisation_gap_nats) == ("passed", 7.5)
