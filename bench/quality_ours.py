"""Our side of the quality table: the recipe of every job, and answers of the engine."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bench.auto_data import JsonRow
from bench.quality_cells import question
from core.engine.text.answers import Detokenizer, Item
from core.engine.text.texts import TextsAnswer, TextsRead, classification_answer
from core.errors import TunesmithError
from core.spec.bundle import BundleRef
from core.spec.classification import ClassificationRequest
from core.spec.events import StepDone
from core.spec.generation import ChatPrompt, GenerationDelta, GenerationRequest, SamplingSpec
from core.spec.job import JobSpec
from core.spec.workspace import Workspace
from core.training.recipe import train
from worker.engine.serve import build_engine
from worker.engine.settings import EngineSettings

BUNDLE = BundleRef(key="bundle", sha256="0" * 64)
"""The trained model. The engine finds it unpacked in its cache, so its hash is never computed."""


class _BundleWritten(Exception):
    """Ends a run once its bundle is there: neither parity nor a second copy is needed."""


@dataclass(frozen=True)
class Trained:
    """A trained model, and the losses of its steps."""

    losses: tuple[float, ...]
    answer: Callable[[Sequence[JsonRow], int], list[str]]
    """Returns the answers to rows, of so many tokens at most, or the labels."""


def train_ours(
    spec: JobSpec, rows: Sequence[JsonRow], folder: Path, finished: Callable[[], None]
) -> Trained:
    """Run the job; call `finished` after its last step, before the bundle is written."""
    workspace = Workspace(folder=folder / "run")
    workspace.folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    workspace.train_file.write_text(lines, encoding="utf-8")
    losses: list[float] = []

    def leave_with_bundle() -> bool:
        if any(workspace.checkpoint_folder(0).parent.glob("*/manifest.json")):
            raise _BundleWritten
        return False

    with suppress(_BundleWritten):
        for event in train(spec, workspace, leave_with_bundle):
            if isinstance(event, StepDone):
                losses.append(event.loss)
                if event.step == event.total_steps:
                    finished()
    bundle = workspace.checkpoint_folder(len(losses))
    cache = folder / "cache"
    cache.mkdir()
    bundle.rename(cache / BUNDLE.sha256)
    return Trained(
        tuple(losses), lambda held_out, tokens: answers(spec, BUNDLE, held_out, tokens, folder)
    )


def answers(
    spec: JobSpec,
    adapter: BundleRef | None,
    rows: Sequence[JsonRow],
    answer_tokens: int,
    folder: Path,
) -> list[str]:
    """Return the engine's greedy answers, or the label of each text."""
    settings = EngineSettings(
        storage_folder=folder / "storage", cache_folder=folder / "cache", precision="fp32"
    )
    engine, reader = build_engine(settings)
    found: list[list[Item]] = []
    if spec.task == "classification":
        texts = tuple(question(row) for row in rows)
        asked = ClassificationRequest(id="texts", base=spec.base, adapter=adapter, texts=texts)
        ready = reader.read_texts(asked)
        found.append([])
        engine.submit(ready, TextsAnswer(ready), found[0].append)
        while engine.step():
            pass
        read = _only(found[0])[0]
        assert isinstance(read, TextsRead)
        scores = classification_answer(ready, read.results).scores
        return [max(each, key=lambda label: each[label]) for each in scores]
    for number, row in enumerate(rows):
        request, token_bytes = reader.read(_request(spec, adapter, row, answer_tokens, number))
        found.append([])
        engine.submit(request, Detokenizer(request, token_bytes), found[-1].append)
    while engine.step():
        pass
    return ["".join(i.text for i in _only(x) if isinstance(i, GenerationDelta)) for x in found]


def _request(
    spec: JobSpec, adapter: BundleRef | None, row: JsonRow, answer_tokens: int, number: int
) -> GenerationRequest:
    messages = cast(tuple[dict[str, Any], ...], tuple(row["messages"][:-1]))
    return GenerationRequest(
        id=f"row-{number}",
        base=spec.base,
        adapter=adapter,
        prompt=ChatPrompt(messages=messages),
        sampling=SamplingSpec(temperature=0, seed=0, max_tokens=answer_tokens),
    )


def _only(items: list[Item]) -> list[Item]:
    """Return the items; raises the error of a request that was rejected."""
    for item in items:
        if isinstance(item, TunesmithError):
            raise item
    return items
