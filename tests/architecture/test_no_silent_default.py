"""A new member of a closed type meets no default: what does not know it fails."""

import ast
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import nn

import core.catalog.objectives
import core.spec.dataset
import core.spec.embedding
import core.spec.members
import core.spec.objective
import core.spec.strategy
from core.adapters.delta import delta_of
from core.batching.packing import pack
from core.batching.rows import TrainingRow, token_sequences
from core.batching.truncation import cut
from core.catalog.learning_rate import base_learning_rate
from core.datasets.summary import Summary
from core.inference import plan
from core.inference.schemas import ChatBody
from core.models.load import load_base, load_tokenizer
from core.objectives.choose import choose_objective
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import SupervisedSpec
from core.spec.training import TrainingSpec
from core.strategies.attach import attach
from core.training.mask import audit
from core.training.optimizer import build_optimizer
from core.training.schedule import learning_rate

ROOT = Path(__file__).parents[2]
TINY = BaseModelSpec(id="tiny", source=str(ROOT / "core" / "models" / "tiny"))

# every module with a table, by the union that its table is about
BY_STRATEGY = ("core/catalog/strategies.py", "core/planning/advice.py")
BY_OBJECTIVE = ("core/catalog/objectives.py",)
BY_TASK = ("core/catalog/tasks.py",)
BY_METHOD = ("core/catalog/hyperparameters.py", "api/jobs/method.py")
BY_FORMAT = ("core/catalog/formats.py",)
BY_TARGET = ("core/artifacts/card.py",)
BY_POOLING = ("core/models/embedder.py",)


class PretendSpec(Spec):
    type: Literal["pretend"] = "pretend"


@dataclass(frozen=True)
class PretendRow:
    line: int = 1
    length: int = 9000
    targets: int = 1


def import_afresh(path: str) -> ModuleType:
    """Run a module as a new one; what it imports stays as it is."""
    spec = importlib.util.spec_from_file_location("afresh", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["afresh"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["afresh"]
    return module


def extended(union: Any, extra: Any) -> Any:
    members = core.spec.members.members(union)
    return Literal[(*members, extra)] if isinstance(extra, str) else _union(*members, extra)


def _union(*classes: Any) -> Any:
    joined = classes[0]
    for each in classes[1:]:
        joined = joined | each
    return joined


@pytest.mark.parametrize(
    ("module", "name", "extra", "path"),
    [
        *((core.spec.strategy, "StrategySpec", PretendSpec, path) for path in BY_STRATEGY),
        *((core.spec.objective, "ObjectiveSpec", PretendSpec, path) for path in BY_OBJECTIVE),
        *((core.spec.objective, "Task", "pretend", path) for path in BY_TASK),
        *((core.spec.objective, "MethodName", "pretend", path) for path in BY_METHOD),
        *((core.spec.dataset, "DatasetFormat", "pretend", path) for path in BY_FORMAT),
        *((core.catalog.objectives, "Target", "pretend", path) for path in BY_TARGET),
        *((core.spec.embedding, "PoolingMode", "pretend", path) for path in BY_POOLING),
    ],
)
def test_a_table_that_misses_a_new_member_fails_at_import(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, extra: Any, path: str
) -> None:
    import_afresh(path)
    monkeypatch.setattr(module, name, extended(getattr(module, name), extra))
    with pytest.raises(TypeError, match="no entry for pretend"):
        import_afresh(path)


def test_every_module_with_a_table_is_tested_here() -> None:
    tested = {
        *(*BY_STRATEGY, *BY_OBJECTIVE, *BY_TASK, *BY_METHOD, *BY_FORMAT, *BY_TARGET),
        *BY_POOLING,
    }
    with_tables = {
        path.relative_to(ROOT).as_posix()
        for folder in ("api", "core", "worker", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if "for_each(" in path.read_text(encoding="utf-8")
    }
    assert with_tables - {"core/spec/members.py"} == tested


def test_what_asks_for_a_class_refuses_an_unknown_one() -> None:
    pretend: Any = PretendSpec()
    with pytest.raises(KeyError, match="pretend"):
        base_learning_rate(pretend, SupervisedSpec(), 256, 100)
    with pytest.raises(AssertionError, match="unreachable"):
        attach(nn.Module(), pretend, None)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="unreachable"):
        Summary().add(1, pretend)


def test_an_unknown_objective_is_refused_before_the_model_is_loaded() -> None:
    job = JobSpec(base=TINY, seed=0)
    job = job.model_copy(update={"objective": PretendSpec()})
    with pytest.raises(KeyError, match="pretend"):
        choose_objective(job, None)  # type: ignore[arg-type]


def test_an_unknown_kind_of_row_is_refused_before_the_model_is_loaded() -> None:
    tokenizer = load_tokenizer(TINY)
    row: TrainingRow = PretendRow()
    job = JobSpec(base=TINY, seed=0)
    with pytest.raises(TypeError, match="PretendRow"):
        audit(job, tokenizer, [row])
    with pytest.raises(TypeError, match="PretendRow"):
        token_sequences(row)
    with pytest.raises(TypeError, match="PretendRow"):
        cut(row, 8, "end", tokenizer)
    with pytest.raises(TypeError, match="PretendRow"):
        pack([row], 64)


def test_an_unknown_layer_of_an_adapter_has_no_delta() -> None:
    class PretendLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base_layer = nn.Linear(2, 2)

    with pytest.raises(TypeError, match="no delta for a PretendLayer"):
        delta_of(PretendLayer(), torch.float32)


def test_an_unknown_literal_is_refused() -> None:
    unknown = TINY.model_copy(update={"quantization": "pretend"})
    with pytest.raises(AssertionError, match="unreachable"):
        load_base(unknown, torch.float32, torch.device("cpu"))
    pretended = {"schedule": "pretend", "optimizer": "pretend"}
    training = TrainingSpec(learning_rate=0.1).model_copy(update=pretended)
    with pytest.raises(AssertionError, match="unreachable"):
        learning_rate(training, 5, 10)
    layer = nn.Linear(2, 2)
    adapted: Any = SimpleNamespace(
        model=layer, parameters=[layer.weight], trainable={"weight": layer.weight}
    )
    job = JobSpec(base=TINY, seed=0).model_copy(update={"training": training})
    with pytest.raises(AssertionError, match="unreachable"):
        build_optimizer(adapted, job, torch.float32)
    body = ChatBody.model_construct(tool_choice="pretend")
    with pytest.raises(AssertionError, match="unreachable"):
        plan._structured_output(body)
    body = ChatBody.model_construct(response_format=PretendSpec())
    with pytest.raises(AssertionError, match="unreachable"):
        plan._structured_output(body)


def lets_pass(match: ast.Match) -> bool:
    """Whether a value that no case knows passes in silence.

    mypy finds it if all cases return, because then the function has no value to return.
    """
    last = match.cases[-1]
    takes_all = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None
    leaves = all(isinstance(case.body[-1], ast.Return | ast.Raise) for case in match.cases)
    return not (takes_all and last.guard is None) and not leaves


def test_no_match_lets_an_unknown_value_pass() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("api", "core", "worker", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Match) and lets_pass(node)
    ]
    assert not found, f"end these with `case _: assert_never(…)`: {found}"


@pytest.mark.parametrize(
    ("cases", "passes"),
    [
        (("case 1: a()", "case 2: b()"), True),
        (("case 1: return 1", "case 2: b()"), True),
        (("case 1: a()", "case _ if b: c()"), True),
        (("case 1: a()", "case _: assert_never(x)"), False),
        (("case 1: return 1", "case 2: raise b"), False),
    ],
)
def test_a_planted_match_is_seen(cases: tuple[str, ...], passes: bool) -> None:
    (match,) = ast.parse("\n ".join(["match x:", *cases])).body
    assert isinstance(match, ast.Match) and lets_pass(match) is passes
