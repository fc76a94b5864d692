"""Models without a job are taken away as those of jobs: imported, added up, exported in each form.

The worker's own tasks run, with all that they store; no engine is there to compare a model.
"""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from core.records import exports
from core.records.made_models import IMPORT, SOUP, request_import, request_soup
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel
from core.spec.bundle import BundleRef
from core.spec.export import ExportOptions, ExportRequest, ExportResult
from core.spec.ids import ModelId
from core.spec.made_model import ImportRequest, MadeModel, SoupRequest, SourceFile
from core.spec.making import LabelSpec
from tests.core.made_models.made_by_peft import KINDS, make
from tests.core.tiny import save_base
from tests.worker.tasks.made_here import children_here, result_of, run_waiting
from tests.worker.workshop import Workshop

MERGED = [("merged", "merged"), ("nf4", "merged"), ("int8", "merged"), ("vllm", "merged")]
FORMATS = [*MERGED, ("huggingface", "merged"), ("huggingface", "adapter"), ("vllm", "adapter")]
TOKENS = torch.arange(5, 45)[None]


@pytest.fixture(autouse=True)
def _children() -> Any:
    with children_here():
        yield


@pytest.fixture
def base(workshop: Workshop) -> BaseModelSpec:
    return save_base(workshop.folder / "base", "llama", eos_token_id=None)


def imported(workshop: Workshop, base: BaseModelSpec, kind: str, seed: int = 1) -> MadeModel:
    """Import an adapter of PEFT by a task; its files are beside the workshop's."""
    saved = workshop.folder / f"saved-{seed}"
    make(KINDS[kind].config(), base, saved, seed)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in saved.iterdir():
            archive.write(path, path.name)
    blob = workshop.store.write(f"files/file-{seed}", [content.getvalue()])
    file = SourceFile(id=f"file-{seed}", name="a.zip", blob_key=blob.key)
    request = ImportRequest(requested_model="tiny", base=base, files=(file,), labels=LabelSpec())
    with workshop.database.writing() as session:
        ensure_project(session)
        task_id = request_import(session, DEFAULT_PROJECT, request).id
    run_waiting(workshop)
    return result_of(workshop, IMPORT, task_id, MadeModel)


def model_of(workshop: Workshop, made: MadeModel) -> BatchModel:
    with workshop.database.reading() as session:
        model = get_owned(session, TunedModel, DEFAULT_PROJECT, ModelId(made.model))
    bundle = BundleRef(key=model.bundle_key, sha256=model.bundle_sha256)
    return BatchModel(id=model.id, base=made.tuned.base, adapter=bundle)


def soup_of(workshop: Workshop, *parts: MadeModel) -> MadeModel:
    models = tuple(model_of(workshop, part) for part in parts)
    request = SoupRequest(
        requested_model="tiny", base=models[0].base, models=models, weights=(0.5,) * len(models)
    )
    with workshop.database.writing() as session:
        task_id = request_soup(session, DEFAULT_PROJECT, request).id
    run_waiting(workshop)
    return result_of(workshop, SOUP, task_id, MadeModel)


def exported(
    workshop: Workshop, made: MadeModel, format_: str, form: str
) -> tuple[ExportResult, Path]:
    """Export a model by a task; return its result, and the folder of its files."""
    model = model_of(workshop, made)
    assert model.adapter is not None
    options = ExportOptions.model_validate({"format": format_, "form": form})
    request = ExportRequest(model=model.id, base=model.base, bundle=model.adapter, options=options)
    with workshop.database.writing() as session:
        task_id = exports.request_export(session, DEFAULT_PROJECT, request, None).id
    run_waiting(workshop)
    result = result_of(workshop, exports.EXPORT, task_id, ExportResult)
    folder = workshop.folder / task_id
    content = io.BytesIO(b"".join(workshop.store.read(result.content.key)))
    with zipfile.ZipFile(content) as archive:
        archive.extractall(folder)
    return result, folder


@torch.no_grad()
def logits(folder: Path, form: str, base: BaseModelSpec) -> torch.Tensor:
    """Return what transformers and PEFT compute of an export, as its user would ask them."""
    source = folder if form == "merged" else base.source
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    if form == "adapter":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.PeftModel.from_pretrained(model, folder)
    found: torch.Tensor = model.eval()(TOKENS).logits
    return found


def require_export(workshop: Workshop, made: MadeModel, format_: str, form: str) -> Path:
    """Export a model on the rows of its parity check; return the folder of its files."""
    result, folder = exported(workshop, made, format_, form)
    distance = result.replay.distance
    assert distance is not None, result.replay.reason
    assert distance.of_parity_check, "fixed texts in place of the model's rows"
    is_rounded = format_ in ("nf4", "int8")
    assert distance.adapter_share == pytest.approx(1, abs=0.5 if is_rounded else 0.05)
    assert is_rounded or result.replay.status == "passed", result.replay.reason
    assert f"exported from `{made.model}`" in (folder / "README.md").read_text()
    return folder


def test_made_models_are_exported_in_every_format(workshop: Workshop, base: BaseModelSpec) -> None:
    parts = [imported(workshop, base, "patterns", 1), imported(workshop, base, "rslora", 2)]
    expected = logits(workshop.folder / "saved-1", "adapter", base)
    for format_, form in FORMATS:
        folder = require_export(workshop, parts[0], format_, form)
        if format_ not in ("nf4", "int8"):
            assert torch.allclose(logits(folder, form, base), expected, atol=1e-3)
    soup = soup_of(workshop, *parts)
    folders = {form: require_export(workshop, soup, "vllm", form) for form in ("merged", "adapter")}
    merged, adapted = (logits(folder, form, base) for form, folder in folders.items())
    assert torch.allclose(merged, adapted, atol=1e-3)
    assert (merged - expected).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_virtual_tokens_are_exported_as_an_adapter(
    workshop: Workshop, base: BaseModelSpec, kind: str
) -> None:
    made = imported(workshop, base, kind)
    result, folder = exported(workshop, made, "huggingface", "adapter")
    assert result.replay.status == "passed", result.replay.reason
    expected = logits(workshop.folder / "saved-1", "adapter", base)
    assert torch.allclose(logits(folder, "adapter", base), expected, atol=1e-4)
