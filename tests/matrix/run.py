"""One case from data to answers: trained, bundled, taken to the engine and loaded elsewhere."""

import json
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import peft
import torch
from starlette.testclient import TestClient
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from core.artifacts.archive import pack
from core.catalog import objectives as catalog
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.classification import ClassificationRequest
from core.spec.events import RunEvent, RunFinished, StepDone
from core.spec.generation import GenerationRequest, SamplingSpec, TextPrompt
from core.spec.job import JobSpec
from core.spec.objective import (
    ClassificationSpec,
    DpoSpec,
    KtoSpec,
    ObjectiveSpec,
    OrpoSpec,
    PretrainingSpec,
    SimpoSpec,
    SupervisedSpec,
)
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)
from core.spec.training import Precision, TrainingSpec
from core.spec.workspace import Workspace
from core.storage.open import open_store
from core.strategies.load import load_adapter
from core.training.recipe import train
from tests.matrix.combinations import Combination
from worker.engine.app import create_app
from worker.engine.serve import build_engine, report
from worker.engine.settings import EngineSettings

LABELS = ("animal", "colour", "number")
WORDS = ("cat", "red", "seven", "dog", "blue", "nine", "fox", "green")
NEW_TOKENS = 6
HELD_OUT = 6
"""Rows: the fewest whose means have an interval."""

STRATEGIES: dict[str, StrategySpec] = {
    "full": FullSpec(),
    "lora": LoraSpec(rank=4, alpha=8),
    "qlora": QloraSpec(rank=4, alpha=8),
    "bottleneck": BottleneckSpec(reduction_factor=4),
    "prefix": PrefixSpec(virtual_tokens=4),
    "prompt": PromptSpec(virtual_tokens=4),
    "ia3": Ia3Spec(),
}
RATES = {
    "full": 2e-3,
    "lora": 1e-2,
    "qlora": 1e-2,
    "bottleneck": 1e-2,
    "prefix": 0.1,
    "prompt": 0.1,
    "ia3": 3e-2,
}
OBJECTIVES: dict[str, ObjectiveSpec] = {
    "supervised": SupervisedSpec(),
    "pretraining": PretrainingSpec(),
    "dpo": DpoSpec(beta=0.5),
    "orpo": OrpoSpec(beta=0.5),
    "simpo": SimpoSpec(),
    "kto": KtoSpec(beta=0.5),
    "classification": ClassificationSpec(labels=LABELS),
}
MODEL_CLASSES: dict[str, Any] = {
    "generation": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}


@dataclass(frozen=True)
class Trained:
    """What is left of a run."""

    spec: JobSpec
    folder: Path
    losses: list[float]
    finished: RunFinished


def train_combination(
    case: Combination, base: BaseModelSpec, folder: Path, precision: Precision = "fp32"
) -> Trained:
    """Train the case for some steps on eight rows, and evaluate it on some of them."""
    spec = JobSpec(
        base=base,
        task=case.task,
        objective=OBJECTIVES[case.objective],
        strategy=STRATEGIES[case.strategy],
        training=TrainingSpec(
            epochs=4,
            batch_size=4,
            # a classifier trains its head as well, which takes no rate as high as a prompt does
            learning_rate=min(RATES[case.strategy], 1e-2 if case.task == "classification" else 1),
            schedule="constant",
            warmup_ratio=0.0,
            precision=precision,
        ),
        seed=1,
    )
    workspace = Workspace(folder=folder)
    folder.mkdir(parents=True)
    lines = [json.dumps(_row(case, index)) + "\n" for index in range(8)]
    workspace.train_file.write_text("".join(lines), encoding="utf-8")
    workspace.validation_file.write_text("".join(lines[:HELD_OUT]), encoding="utf-8")
    events: list[RunEvent] = list(train(spec, workspace, lambda: False))
    finished = events[-1]
    assert isinstance(finished, RunFinished), finished
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    return Trained(spec, finished.folder, losses, finished)


def _row(case: Combination, index: int) -> dict[str, Any]:
    """Return a row in a format of the case's objective; an encoder-decoder has no chat template."""
    word = WORDS[index]
    formats = catalog.OBJECTIVES[case.objective].formats
    match "prompt-completion" if case.task == "seq2seq" else formats[0]:
        case "chat":
            return {
                "messages": [
                    {"role": "user", "content": f"say {word}"},
                    {"role": "assistant", "content": f"{word} {word}"},
                ]
            }
        case "prompt-completion":
            return {"prompt": f"say {word}", "completion": word * 2}
        case "preference":
            return {"prompt": f"say {word}", "chosen": f" {word}!", "rejected": f" no {index}"}
        case "unpaired-preference":
            return {"prompt": f"say {word}", "completion": f" {word}!", "label": index % 2 == 0}
        case "text":
            return {"text": f"{word} and {word} make {word}"}
        case "classification":
            return {"text": f"this is {word}", "label": LABELS[index % 3]}
        case other:
            raise AssertionError(f"no row of the format {other}")


def stored(trained: Trained, folder: Path) -> BundleRef:
    """Put the bundle into the storage of `folder`."""
    archive = folder / "bundle.zip"
    bundle = BundleRef(key="bundles/job/final.zip", sha256=pack(trained.folder, archive))
    open_store(folder / "storage").write_file(bundle.key, archive)
    return bundle


def engine_settings(trained: Trained, folder: Path) -> EngineSettings:
    """Return the settings of an engine that reads the storage of `folder`."""
    return EngineSettings(
        storage_folder=folder / "storage",
        cache_folder=folder / "cache",
        precision=trained.spec.training.precision,
    )


def served(trained: Trained, folder: Path, texts: list[str]) -> list[Any]:
    """Ask the engine's endpoints: the tokens' texts of each answer, or the scores of each text."""
    bundle, settings = stored(trained, folder), engine_settings(trained, folder)
    engine, reader = build_engine(settings)
    app = create_app(engine, reader, lambda: report(engine, settings))
    with TestClient(app) as client:
        base = trained.spec.base
        if trained.spec.task == "classification":
            asked = ClassificationRequest(id="a", base=base, adapter=bundle, texts=tuple(texts))
            answer = client.post("/classify", content=asked.model_dump_json())
            assert answer.status_code == 200, answer.text
            scores: list[Any] = answer.json()["scores"]
            return scores
        return [_generated(client, base, bundle, text) for text in texts]


def _generated(client: TestClient, base: BaseModelSpec, bundle: BundleRef, text: str) -> str:
    asked = GenerationRequest(
        id="a",
        base=base,
        adapter=bundle,
        prompt=TextPrompt(text=text),
        sampling=SamplingSpec(max_tokens=NEW_TOKENS, temperature=0, seed=0),
    )
    answer = client.post("/generate", content=asked.model_dump_json())
    assert answer.status_code == 200, answer.text
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert events[-1]["type"] == "choice_finished", events[-1]
    return "".join(event["text"] for event in events if event["type"] == "delta")


def loaded_elsewhere(trained: Trained, texts: list[str]) -> list[Any]:
    """The same from the bundle alone, by transformers and PEFT as its model card says."""
    model = _reference(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    with torch.no_grad():
        return [_reference_answer(trained, model, tokenizer, text) for text in texts]


def _reference(trained: Trained) -> Any:
    model_class = MODEL_CLASSES[trained.spec.task]
    labels = {}
    if isinstance(trained.spec.objective, ClassificationSpec):
        labels = {"num_labels": len(trained.spec.objective.labels)}
    strategy = trained.spec.strategy
    if isinstance(strategy, FullSpec):
        return model_class.from_pretrained(trained.folder).eval()
    base = model_class.from_pretrained(trained.spec.base.source, **labels).eval()
    if isinstance(strategy, BottleneckSpec):  # PEFT knows no such adapter
        adapted = load_adapter(base, trained.folder, load_tokenizer(trained.spec.base))
        adapted.install()
        return base
    return peft.PeftModel.from_pretrained(base, trained.folder).eval()


def _reference_answer(trained: Trained, model: Any, tokenizer: Any, text: str) -> Any:
    encoded = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    if trained.spec.task == "classification":
        scores = model(**encoded).logits[0].softmax(dim=-1)
        return dict(zip(LABELS, scores.tolist(), strict=True))
    ends = _end_tokens(model, tokenizer)
    output = model.generate(
        **encoded,
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=ends,
        forced_eos_token_id=None,  # BART would end its text at the limit with a token of its own
        pad_token_id=tokenizer.pad_token_id,
    )
    start = 1 if trained.spec.task == "seq2seq" else encoded["input_ids"].shape[1]
    written = takewhile(lambda token: token not in ends, output[0, start:].tolist())
    return tokenizer.decode(list(written), skip_special_tokens=True)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Where `generate` stops by itself, and where an answer ends by the tokenizer."""
    ids = [model.generation_config.eos_token_id, tokenizer.eos_token_id]
    return sorted({token for token in ids if token is not None})
