"""The held-out losses of `bench.sweeps` at shares of a run, for each learning rate and seed.

Every result is stored at once and never measured twice.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.auto_data import JsonRow, Rows, take
from core.errors import TrainingFailed
from core.spec.base_model import BaseModelSpec
from core.spec.events import Evaluated, RungReached
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.spec.training import EvaluationSpec, TrainingSpec
from core.spec.trial import WHOLE_RUN
from core.spec.workspace import Workspace
from core.training.recipe import train

TINY = Path(__file__).parents[1] / "core" / "models" / "tiny"
DATASET = "module of a docstring"
TRAINING_ROWS, HELD_OUT_ROWS = 240, 100
LONGEST_CHARACTERS = 160
"""Of a docstring: short rows make ten seeds affordable."""
BATCH_ROWS, EPOCHS = 8, 3

DRAWN = 2000, 380
"""Rows of any length, of which the short ones are used."""

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SHARES = (0.065, 0.08, 0.0975, 0.125, 0.3, 0.33, 0.36, WHOLE_RUN)


@dataclass(frozen=True)
class Curve:
    """The held-out losses of one run by share, in nats per target; infinite once it has failed."""

    rate: float
    losses: dict[float, float]

    def at(self, share: float) -> float:
        return self.losses.get(share, float("inf"))


@dataclass(frozen=True)
class Curves:
    """The file of results: a line for each run, or for a part that was measured later."""

    results: Path

    def measure(self, seed: int) -> None:
        """Train every rate with this seed, until the last share that is not stored."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        for rate in RATES:
            stored = self._stored().get((seed, rate), Curve(rate, {}))
            missing = [share for share in SHARES if share not in stored.losses]
            if missing:
                found = _losses(seed, rate, missing)
                losses = {str(share): loss for share, loss in found.items()}
                line = {"seed": seed, "rate": rate, "losses": losses}
                with self.results.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(line) + "\n")
                print(f"seed {seed}, rate {rate:g}: {found}", flush=True)

    def of(self, seed: int) -> list[Curve] | None:
        """Return the curves of a seed, one for each rate; None unless all are complete."""
        stored = self._stored()
        curves = [stored.get((seed, rate), Curve(rate, {})) for rate in RATES]
        return curves if all(set(SHARES) <= set(each.losses) for each in curves) else None

    def _stored(self) -> dict[tuple[int, float], Curve]:
        found: dict[tuple[int, float], Curve] = {}
        if self.results.exists():
            for text in self.results.read_text(encoding="utf-8").splitlines():
                line = json.loads(text)
                curve = found.setdefault((line["seed"], line["rate"]), Curve(line["rate"], {}))
                curve.losses.update({float(key): loss for key, loss in line["losses"].items()})
        return found


def short_rows(training: int, held_out: int, seed: int) -> Rows:
    """Return disjoint training and held-out rows of short docstrings, drawn by the seed."""
    drawn = take(DATASET, Path(), *DRAWN, seed)

    def short(rows: list[JsonRow], count: int) -> list[JsonRow]:
        found = [row for row in rows if len(row["messages"][1]["content"]) <= LONGEST_CHARACTERS]
        assert len(found) >= count, f"only {len(found)} rows are short"
        return found[:count]

    return Rows(short(drawn.train, training), short(drawn.held_out, held_out))


def _losses(seed: int, rate: float, shares: Sequence[float]) -> dict[float, float]:
    """Train until the last of `shares`; return the losses there."""
    rows = short_rows(TRAINING_ROWS, HELD_OUT_ROWS, seed)
    spec = JobSpec(
        base=BaseModelSpec(id="tiny", source=str(TINY)),
        strategy=LoraSpec(),
        training=TrainingSpec(
            epochs=EPOCHS,
            batch_size=BATCH_ROWS,
            learning_rate=rate,
            max_length=512,
            precision="fp32",
        ),
        evaluation=EvaluationSpec(every_steps=10_000_000, keep_best=False),
        seed=seed,
    )
    losses = dict.fromkeys(shares, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder=Path(folder))
        for path, part in (
            (workspace.train_file, rows.train),
            (workspace.validation_file, rows.held_out),
        ):
            path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        try:
            for share in shares:
                losses[share] = _loss_at(spec, workspace, share)
        except TrainingFailed as error:
            if error.code != "loss_nonfinite":
                raise
    return losses


def _loss_at(spec: JobSpec, workspace: Workspace, share: float) -> float:
    """Train until a share of the run, from where the workspace's state is; return the loss."""
    loss = float("nan")
    until = None if share == WHOLE_RUN else share
    for event in train(spec, workspace, lambda: False, pause_at_share=until):
        if isinstance(event, Evaluated):
            loss = event.loss
            if until is None:
                break  # neither checkpoint nor bundle is needed
        if isinstance(event, RungReached):
            assert event.loss is not None
            loss = event.loss
    return loss
