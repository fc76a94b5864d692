import json
import random

import pytest

from core.spec.job import JobSpec
from core.spec.objective import SupervisedSpec
from core.spec.strategy import LoraSpec
from core.spec.training import EvaluationSpec, TrainingSpec
from core.spec.workspace import Workspace


@pytest.fixture(autouse=True)
def curves_in_place_of_pictures(monkeypatch):
    """Drawing takes more than half of such a run; the pictures are tested with the bundle."""
    monkeypatch.setattr(
        "core.artifacts.bundle.draw_loss", lambda path, curve: path.write_text(repr(curve))
    )


def write_chats(path, rows, seed=0):
    """Questions and answers of 1 to 30 random letters each."""
    draw = random.Random(seed)

    def letters():
        return "".join(draw.choices("abcdefgh ", k=draw.randint(1, 30)))

    lines = (
        {
            "messages": [
                {"role": "user", "content": letters()},
                {"role": "assistant", "content": letters() + "."},
            ]
        }
        for _ in range(rows)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def workspace(tmp_path):
    """Sixteen rows to train on."""
    workspace = Workspace(folder=tmp_path / "workspace")
    workspace.folder.mkdir()
    write_chats(workspace.train_file, 16)
    return workspace


@pytest.fixture
def many_rows(workspace):
    """The same workspace with 160 rows: twenty steps in one epoch."""
    write_chats(workspace.train_file, 160)
    return workspace


@pytest.fixture
def job(base_spec):
    """Return a builder: `job(epochs=2)` is a JobSpec with those hyperparameters, in fp32.

    It is as a worker reads it from its row.
    """

    def build(strategy=None, seed=1, evaluation=None, objective=None, **hyper):
        defaults = {"epochs": 1, "batch_size": 8, "precision": "fp32", "learning_rate": 5e-3}
        spec = JobSpec(
            base=base_spec,
            strategy=strategy or LoraSpec(rank=4, alpha=8),
            objective=objective or SupervisedSpec(),
            training=TrainingSpec(**(defaults | hyper)),
            evaluation=EvaluationSpec(**(evaluation or {})),
            seed=seed,
        )
        return JobSpec.model_validate_json(spec.model_dump_json())

    return build
