"""The verdict that figures and answers give."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from core.errors import Unavailable
from core.spec.base_model import BaseModelSpec
from core.spec.evaluation import Requirement
from core.spec.grader import MultiGrader, PythonOutcome, StringCheckGrader
from core.spec.held_out import CurvePoint, Figures, HeldOutFacts, Question
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec, DpoSpec
from core.spec.training import EvaluationSpec
from core.spec.verdict import Answer, Verdict
from core.verdict.judge import NO_ROWS, Collected, judge
from core.verdict.metrics import Pair, Scored
from core.verdict.scoring import graded, scored

BASE = BaseModelSpec(id="tiny", source="/models/tiny")
SPEC = JobSpec(base=BASE, seed=1)
FACTS = HeldOutFacts(
    rows=20,
    source="split",
    base=Figures(loss=2.0, accuracy=0.25),
    tuned=Figures(loss=1.0, accuracy=0.5),
)


class NoJudges:
    """Judges for graders that need none."""

    async def complete(self, body: Any) -> dict[str, Any]:
        raise Unavailable("no engine")

    async def embed(self, model: str | None, texts: Sequence[str]) -> list[list[float]]:
        raise Unavailable("no engine")

    async def run_python(self, source: str, sample: Any, item: Any) -> PythonOutcome:
        raise Unavailable("no sandbox")


def pair(question: Question, base: Answer, tuned: Answer) -> Pair:
    async def both() -> Pair:
        judges = NoJudges()
        return Pair(
            question,
            await scored(question, base, judges),
            await scored(question, tuned, judges),
        )

    return asyncio.run(both())


def texts(*answers: tuple[str, str], reference: str = "right") -> list[Pair]:
    return [
        pair(
            Question(line=line, text="?", reference=reference), Answer(text=base), Answer(text=mine)
        )
        for line, (base, mine) in enumerate(answers, 1)
    ]


def verdict(pairs: Sequence[Pair] = (), facts: HeldOutFacts = FACTS, **evaluation: Any) -> Verdict:
    spec = SPEC.model_copy(update={"evaluation": EvaluationSpec(**evaluation)})
    return judge(spec, facts, "tiny", Collected(pairs=pairs))


def test_better_answers_are_better_with_their_interval() -> None:
    found = verdict(texts(*[("wrong", " right\n")] * 8, ("right", "right")))
    assert found.status == "better"
    exact, rouge = found.metrics
    assert (exact.name, exact.rows, exact.tuned) == ("exact_match", 9, 1.0)
    assert exact.base == pytest.approx(1 / 9)
    assert exact.difference == pytest.approx(8 / 9)
    assert exact.interval is not None
    assert 0 < exact.interval[0] <= 8 / 9 <= exact.interval[1] == 1.0
    assert rouge.name == "rouge_l"
    assert found.sentence.startswith("Better than tiny on held-out rows: exact_match 1 against 0.1")
    assert "held-out loss 1 against 2 (20 rows)" in found.sentence
    sample = found.samples[0]
    assert (sample.base.text, sample.tuned.text, sample.reference) == ("wrong", " right\n", "right")
    assert (sample.scores["exact_match"].base, sample.scores["exact_match"].tuned) == (0, 1)


def test_worse_answers_are_worse_although_the_loss_is_lower() -> None:
    assert verdict(texts(*[("right", "wrong")] * 8)).status == "worse"


def test_difference_that_chance_explains_is_none() -> None:
    mixed = texts(*[("right", "wrong"), ("wrong", "right")] * 5, ("wrong", "right"))
    found = verdict(mixed)
    assert found.status == "no_worse"
    assert "not shown to be better" in found.sentence


@pytest.mark.parametrize(
    ("tuned", "status"),
    [(1.9, "better"), (1.985, "no_worse"), (2.015, "no_worse"), (2.1, "worse")],
)
def test_loss_decides_without_enough_answers(tuned: float, status: str) -> None:
    facts = FACTS.model_copy(update={"tuned": Figures(loss=tuned, accuracy=0.5)})
    assert verdict(facts=facts).status == status
    assert verdict(texts(*[("right", "wrong")] * 5), facts).status == status


def test_perplexity_is_that_of_tokens_only() -> None:
    found = verdict()
    assert found.held_out.base is not None
    assert found.held_out.base.perplexity == pytest.approx(7.389, abs=1e-3)
    dpo = judge(SPEC.model_copy(update={"objective": DpoSpec()}), FACTS, "tiny", Collected())
    assert dpo.held_out.base is not None and dpo.held_out.base.perplexity is None


def test_without_held_out_rows_nothing_is_judged_and_the_way_is_named() -> None:
    found = verdict(facts=HeldOutFacts(base_missing="there are no held-out rows"))
    assert (found.status, found.missing, found.metrics) == ("unjudged", (NO_ROWS,), ())
    assert found.sentence == f"Not judged against tiny. {NO_ROWS}"
    assert found.overfitting.status == "unknown"


def test_base_that_was_not_measured_is_named() -> None:
    facts = FACTS.model_copy(update={"base": None, "base_missing": "it took longer than 120 s"})
    found = verdict(facts=facts)
    assert found.status == "unjudged"
    assert found.missing == (
        "The held-out loss of the base was not measured: it took longer than 120 s.",
    )
    assert "held-out loss 1 (20 rows)" in found.sentence


def test_refused_rows_are_not_compared() -> None:
    refused = pair(
        Question(line=9, text="?", reference="right"),
        Answer(error="too long"),
        Answer(text="right"),
    )
    found = verdict([*texts(*[("wrong", "right")] * 6), refused])
    assert [metric.rows for metric in found.metrics] == [6, 6]
    assert len(found.samples) == 7 and found.samples[-1].base.error == "too long"


def test_labels_are_compared_with_the_majority() -> None:
    truth = ["a", "a", "a", "b", "b", "c"] * 2
    pairs = [
        pair(
            Question(line=1, text="?", labels=(name,)),
            Answer(labels=("a",)),
            Answer(labels=(name,)),
        )
        for name in truth
    ]
    spec = SPEC.model_copy(
        update={"task": "classification", "objective": ClassificationSpec(labels=("a", "b", "c"))}
    )
    found = judge(spec, FACTS, "always a", Collected(pairs=pairs))
    by_name = {metric.name: metric for metric in found.metrics}
    assert by_name["accuracy"].base == 0.5 and by_name["accuracy"].tuned == 1
    assert by_name["macro_f1"].base == pytest.approx((2 / 3) / 3)
    assert found.status == "better"
    assert found.confusion is not None
    assert found.confusion.counts == ((6, 0, 0), (0, 4, 0), (0, 0, 2))
    assert [figures.f1 for figures in found.by_label] == [1, 1, 1]


def test_tool_calls_are_compared_where_a_row_has_tools() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    other = {"type": "function", "function": {"name": "f", "arguments": '{"a": 2}'}}
    tool = {"type": "function", "function": {"name": "f"}}
    question = Question(line=1, messages=({"role": "user"},), tools=(tool,), tool_calls=(call,))
    found = verdict([pair(question, Answer(tool_calls=(other,)), Answer(tool_calls=(call,)))] * 6)
    shown = {metric.name: (metric.base, metric.tuned) for metric in found.metrics}
    assert shown == {"tool_call_match": (0, 1), "tool_name_match": (1, 1)}


def test_graders_score_beside_the_defaults_and_say_what_fails() -> None:
    question = Question(line=1, text="?", reference="right")
    same = StringCheckGrader(
        name="same", input="{{sample.output_text}}", reference="{{item.reference}}", operation="eq"
    )
    broken = StringCheckGrader(
        name="broken", input="{{item.nothing}}", reference="x", operation="eq"
    )

    async def score(text: str) -> Any:
        judges = NoJudges()
        found = await scored(question, Answer(text=text), judges)
        return await graded(question, found, (same, broken), judges)

    pairs = [Pair(question, asyncio.run(score("wrong")), asyncio.run(score("right")))] * 6
    found = verdict(pairs)
    by_name = {metric.name: metric for metric in found.metrics}
    assert (by_name["same"].base, by_name["same"].tuned) == (0, 1)
    assert by_name["broken"].tuned is None
    assert by_name["broken"].missing is not None and "6 of 6 rows" in by_name["broken"].missing
    assert any("broken was not measured on 6 of 6 rows" in each for each in found.missing)


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ({"metric": "exact_match", "better_than_base_by": 0.5}, True),
        ({"metric": "exact_match", "better_than_base_by": 1.1}, False),
        ({"metric": "exact_match", "at_least": 1}, True),
        ({"metric": "loss", "at_most": 1.2}, True),
        ({"metric": "loss", "at_most": 0.9}, False),
        ({"metric": "loss", "better_than_base_by": 1.0}, True),
        ({"metric": "loss", "better_than_base_by": 1.5}, False),
        ({"metric": "perplexity", "at_most": 2.8}, True),
        ({"metric": "token_accuracy", "at_least": 0.6}, False),
        ({"metric": "macro_f1", "at_least": 0.1}, None),
    ],
)
def test_requirements(requirement: dict[str, Any], met: bool | None) -> None:
    found = verdict(texts(*[("wrong", "right")] * 8), require=requirement)
    (outcome,) = found.requirements
    assert outcome.met is met
    assert (found.unmet is None) == (met is True)
    if met is False:
        assert found.unmet is not None and requirement["metric"] in found.unmet
        assert "is required" in found.unmet or "is allowed" in found.unmet


def test_requirement_that_was_not_measured_says_why() -> None:
    collected = Collected(missing=["The models were not asked: no engine is registered."])
    spec = SPEC.model_copy(
        update={"evaluation": EvaluationSpec(require={"metric": "rouge_l", "at_least": 0.1})}
    )
    found = judge(spec, FACTS, "tiny", collected)
    assert found.unmet is not None
    assert "rouge_l was not measured" in found.unmet and "no engine is registered" in found.unmet


def test_all_limits_of_a_requirement_apply_and_all_requirements() -> None:
    found = verdict(
        texts(*[("wrong", "right")] * 8),
        require=[
            {"metric": "loss", "at_most": 0.5, "better_than_base_by": 1.5},
            {"metric": "exact_match", "at_least": 0.1},
        ],
    )
    assert [outcome.met for outcome in found.requirements] == [False, True]
    assert found.unmet is not None
    assert "at most 0.5 is allowed; better by at least 1.5 is required" in found.unmet


@pytest.mark.parametrize(
    "wrong",
    [
        {"require": {"metric": "loss"}},
        {"require": {"metric": "blue", "at_least": 1}},
        {"graders": [{"type": "string_check", "name": "loss", "input": "", "reference": "",
                      "operation": "eq"}]},
    ],
)  # fmt: skip
def test_specs_that_could_not_be_judged_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        EvaluationSpec(**wrong)


def test_requirement_may_name_a_grader() -> None:
    grader = {
        "type": "string_check",
        "name": "own",
        "input": "",
        "reference": "",
        "operation": "eq",
    }
    spec = EvaluationSpec(graders=[grader], require=[{"metric": "own", "at_least": 1}])
    assert spec.require == (Requirement(metric="own", at_least=1),)


def test_verdict_survives_its_storage() -> None:
    curve = tuple(
        CurvePoint(step=step, train_loss=1 / step, held_out_loss=1 + step) for step in (1, 2)
    )
    found = verdict(texts(*[("a", "right")] * 6), FACTS.model_copy(update={"curve": curve}))
    assert found.overfitting.status == "overfitted"
    assert Verdict.model_validate_json(found.model_dump_json()) == found


def test_scores_beyond_all_reason_are_no_scores() -> None:
    """Sums of them would not be finite, and could not be stored."""
    question = Question(line=1, text="?", reference="x")
    same = StringCheckGrader(
        name="same", input="{{sample.output_text}}", reference="{{item.reference}}", operation="eq"
    )
    huge = MultiGrader(
        name="huge",
        graders={"a": same},
        calculate_output="1e308 * (2 * a - 1)",
    )
    found = asyncio.run(graded(question, Scored(Answer(text="x")), (huge,), NoJudges()))
    assert found.values == {"huge": None}
    assert "1e+12" in found.problems["huge"]
