"""What is said of an engine's figures: within bounds, or what differs."""

import math
import random

import pytest

from core.parity.asking import Replies, Reply
from core.parity.verdict import FLOOR_MAX_NATS, FLOOR_MEAN_NATS, LARGE_COST_NATS, judge
from core.spec.generation import TokenPrompt
from core.spec.parity import Ablation, Parity, ParityReference, Repeat, ReplayedRow, ReplayedText

IDS = (5, 6, 7)
TOKENS = 100
NOISE = {"fp32": 1e-6, "fp16": 0.005, "bf16": 0.04}
"""Of one computation; two of them lie further apart."""


def row(line: int, *logprobs: float) -> ReplayedRow:
    return ReplayedRow(
        line=line,
        prompt=TokenPrompt(tokens=IDS),
        prompt_ids=IDS,
        answer=tuple(range(len(logprobs))),
        logprobs=(None, None, None, *logprobs),
    )


class Model:
    """Figures of a model that is known exactly, and of computations of it that round."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = random.Random(seed)
        self.exact = [self.draw.uniform(-3, 0) for _ in range(2 * TOKENS)]

    def change(self, size: float) -> list[float]:
        """Return what some modules add to each figure."""
        return [self.draw.gauss(0, size) for _ in self.exact]

    def computed(self, precision: str, *changes: list[float]) -> tuple[float, ...]:
        """Return the figures as arithmetic in a format gives them, with changes added."""
        sums = [sum(each) for each in zip(self.exact, *changes, strict=True)]
        return tuple(each + self.draw.gauss(0, NOISE[precision]) for each in sums)

    def reference(self, precision: str = "bf16", **ablated: list[float]) -> ParityReference:
        figures = self.computed(precision)
        formats = [precision] * 4 + ([] if precision == "bf16" else ["bf16"] * 2)
        return ParityReference.model_validate(
            {
                "precision": precision,
                "rows": (row(3, *figures[:TOKENS]), row(8, *figures[TOKENS:])),
                "repeats": [Repeat(precision=f, figures=self.computed(f)) for f in formats],
                "ablations": [
                    Ablation(
                        modules=name,
                        count=2,
                        is_whole=name == "whole",
                        figures=self.computed(precision, [-each for each in change]),
                    )
                    for name, change in ablated.items()
                ],
            }
        )


def said(figures: tuple[float, ...], precision: str | None = "bf16") -> Replies:
    halves = figures[:TOKENS], figures[TOKENS:]
    return Replies(tuple(Reply(IDS, each, precision) for each in halves))  # type: ignore[arg-type]


def minus(change: list[float], share: float = 1.0) -> list[float]:
    return [-share * each for each in change]


@pytest.mark.parametrize("precision", NOISE)
def test_honest_engine_passes_in_every_format(precision: str) -> None:
    for seed in range(30):
        model = Model(seed)
        adapter, v_proj = model.change(0.5), model.change(0.05)
        reference = model.reference(precision, whole=adapter, v_proj=v_proj)
        parity = judge(reference, said(model.computed(precision), precision))
        assert parity.status == "passed", parity.reason
        assert parity.adapter_share == pytest.approx(1, abs=0.1)


def test_figures_tell_what_was_measured_and_what_is_allowed() -> None:
    model = Model()
    parity = judge(model.reference(whole=model.change(1.0)), said(model.computed("bf16")))
    assert (parity.rows, parity.tokens, parity.token_rows) == (2, 2 * TOKENS, 2)
    assert parity.mean_rounding_nats == pytest.approx(0.04 * math.sqrt(2) * 0.8, rel=0.1)
    assert parity.mean_allowed_nats is not None and parity.mean_difference_nats is not None
    assert parity.mean_difference_nats == pytest.approx(parity.mean_rounding_nats, rel=0.3)
    assert 2 < parity.mean_allowed_nats / parity.mean_rounding_nats < 2.5
    assert parity.max_allowed_nats == pytest.approx(3 * (parity.max_rounding_nats or 0), abs=2e-3)
    assert parity.adapter_effect_nats == pytest.approx(0.8, rel=0.2)


def test_bounds_have_a_floor_below_which_nobody_minds() -> None:
    model = Model()
    reference = model.reference("fp32")
    for shift, status in ((FLOOR_MEAN_NATS, "passed"), (2 * FLOOR_MEAN_NATS, "failed")):
        moved = tuple(figure + shift for figure in reference.figures)
        assert judge(reference, said(moved, "fp32")).status == status


def test_one_token_beyond_the_bound_fails_and_its_line_is_named() -> None:
    reference = Model().reference("fp32")
    moved = list(reference.figures)
    moved[TOKENS] += 2 * FLOOR_MAX_NATS
    parity = judge(reference, said(tuple(moved), "fp32"))
    assert (parity.status, parity.differs) == ("failed", "numbers")
    assert parity.reason is not None and "by up to 0.002 nat (line 8; allowed 0.001" in (
        parity.reason
    )


def test_ignored_module_is_named_although_it_changes_less_than_rounding() -> None:
    for seed in range(10):
        model = Model(seed)
        v_proj, q_proj = model.change(0.04), model.change(0.04)
        whole = [a + b + c for a, b, c in zip(v_proj, q_proj, model.change(0.1), strict=True)]
        reference = model.reference(whole=whole, q_proj=q_proj, v_proj=v_proj)
        parity = judge(reference, said(model.computed("bf16", minus(v_proj))))
        assert (parity.status, parity.differs) == ("failed", "module"), seed
        assert parity.reason is not None
        assert parity.reason.startswith(
            "The engine ignores v_proj (2 trained modules): its log-prob"
        )


def test_change_that_rounding_hides_is_no_evidence() -> None:
    for seed in range(30):
        model = Model(seed)
        tiny = model.change(0.001)
        parity = judge(model.reference(whole=tiny, v_proj=tiny), said(model.computed("bf16")))
        assert (parity.status, parity.adapter_share) == ("passed", None), parity.reason


@pytest.mark.parametrize(("share", "status"), [(0.97, "passed"), (0.7, "failed"), (1.4, "failed")])
def test_adapter_has_to_be_given_whole(share: float, status: str) -> None:
    model = Model()
    adapter = model.change(0.3)
    lost = minus(adapter, 1 - share)
    parity = judge(model.reference(whole=adapter), said(model.computed("bf16", lost)))
    assert parity.status == status
    assert parity.adapter_share == pytest.approx(share, abs=0.05)
    if status == "failed":
        assert parity.differs == "adapter" and parity.reason is not None
        assert f"it shows {parity.adapter_share:.0%}" in parity.reason


def test_another_adapter_of_the_same_strength_is_found() -> None:
    for seed in range(10):
        model = Model(seed)
        ours, other = model.change(0.1), model.change(0.1)
        figures = model.computed("bf16", minus(ours), other)
        parity = judge(model.reference(whole=ours), said(figures))
        assert (parity.status, parity.differs) in {("failed", "module"), ("failed", "adapter")}


def test_coarser_engine_is_judged_by_what_its_format_costs() -> None:
    model = Model()
    cheap = judge(model.reference("fp32"), said(model.computed("bf16"), "bf16"))
    assert (cheap.status, cheap.engine_precision) == ("passed", "bf16")
    NOISE["coarse"] = 4 * LARGE_COST_NATS
    try:
        reference = model.reference("fp32")
        dear = [Repeat(precision="bf16", figures=model.computed("coarse"))] * 2
        reference = reference.model_copy(update={"repeats": (*reference.repeats[:4], *dear)})
        parity = judge(reference, said(model.computed("coarse"), "bf16"))
    finally:
        del NOISE["coarse"]
    assert (parity.status, parity.differs) == ("failed", "precision")
    assert parity.reason is not None
    assert "bf16 arithmetic changes its log-probabilities by 0.3" in parity.reason


def test_engine_in_a_finer_format_than_training_passes() -> None:
    model = Model()
    assert judge(model.reference("bf16"), said(model.computed("fp32"), "fp32")).status == "passed"


def test_engine_that_computes_otherwise_than_it_says_is_told_its_format() -> None:
    model = Model()
    parity = judge(model.reference("fp32"), said(model.computed("bf16"), "fp32"))
    assert (parity.status, parity.differs) == ("failed", "precision")
    assert parity.reason is not None and "reports fp32" in parity.reason
    assert judge(model.reference("fp16"), said(model.computed("bf16"), "fp16")).differs == (
        "precision"
    )


def test_engine_that_does_not_tell_its_format_is_taken_to_have_that_of_training() -> None:
    model = Model()
    exact = judge(model.reference("fp32"), said(model.computed("fp32"), None))
    assert (exact.status, exact.engine_precision) == ("passed", None)
    assert judge(model.reference("fp32"), said(model.computed("bf16"), None)).status == "failed"


@pytest.mark.parametrize(
    ("ids", "position"), [((5, 6, 9), 2), ((5, 6), 2), ((5, 6, 7, 8), 3), ((1, 6, 7), 0)]
)
def test_other_tokens_are_a_difference_of_the_template(ids: tuple[int, ...], position: int) -> None:
    reference = Model().reference()
    first = Reply(IDS, reference.rows[0].figures, "bf16")
    replies = Replies((first, Reply(ids, (), "bf16")))
    parity = judge(reference, replies)
    assert (parity.status, parity.differs) == ("failed", "template")
    assert parity.reason is not None
    assert "line 8" in parity.reason and f"from token {position} on" in parity.reason


def test_figure_that_is_no_number_does_not_pass() -> None:
    reference = Model().reference()
    figures = (math.nan, *reference.figures[1:])
    assert judge(reference, said(figures)).status == "failed"


def labelled(shift: float) -> Parity:
    texts = tuple(
        ReplayedText(line=line, text="a", logprobs={"x": -0.1, "y": -2.3}) for line in range(8)
    )
    told = ParityReference(precision="fp32", rows=texts)
    repeat = Repeat(precision="fp32", figures=tuple(each + 1e-6 for each in told.figures))
    replies = Replies(tuple(Reply((), (-0.1, -2.3 + shift)) for _ in texts))
    return judge(told.model_copy(update={"repeats": (repeat, repeat)}), replies)


def test_labels_are_compared_as_tokens_are() -> None:
    passed = labelled(1e-6)
    assert (passed.status, passed.tokens) == ("passed", 16)
    failed = labelled(0.01)
    assert (failed.status, failed.differs) == ("failed", "numbers")


def test_reference_without_a_measure_of_rounding_leaves_it_unchecked() -> None:
    model = Model()
    reference = model.reference().model_copy(update={"repeats": ()})
    assert judge(reference, said(model.computed("bf16"))).status == "unchecked"


def test_gap_of_a_quantized_trainer_is_told_and_not_judged() -> None:
    model = Model()
    reference = model.reference().model_copy(update={"quantization_gap_nats": 7.5})
    parity = judge(reference, said(model.computed("bf16")))
    assert (parity.status, parity.quantization_gap_nats) == ("passed", 7.5)
