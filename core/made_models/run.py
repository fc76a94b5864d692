"""Makes a model without a job: weights → our adapter → bundle → PEFT's figures → reference.

The base is loaded twice, because PEFT changes the one that it is given.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import all_or_nothing
from core.artifacts.bundle import write_adapter_bundle
from core.artifacts.made_card import made_card
from core.catalog.families import family_of
from core.made_models.importing import PEFT_TASKS, Planned, is_without_effect, plan_import
from core.made_models.peft_model import peft_figures, write_for_peft
from core.made_models.reading import (
    copy_weights,
    our_weights,
    read_weights,
    require_complete,
    require_own_head,
)
from core.made_models.rows import write_rows
from core.made_models.soup import read_ingredient, soup
from core.models.attention import use_packed_attention
from core.models.load import load_base
from core.models.precision import dtype_of, pick_device
from core.models.precision_choice import PrecisionChooser
from core.spec.job import JobSpec
from core.spec.making import ImportSource, MadeBundle, MakingRequest, SoupSource
from core.spec.objective import ClassificationSpec
from core.spec.parity import ParityReference
from core.spec.tuned import TunedSpec
from core.spec.workspace import Workspace
from core.strategies.attach import attach
from core.training.data import load_dataset
from core.training.inputs import Inputs, inputs_of
from core.training.parity import parity_reference
from core.training.parity_rows import described
from core.training.replayed import Replay, choose_rows
from core.training.trained import Trained

NOTHING_LEARNED = (
    "Every lora_B of the adapter is zero, as before training: the model answers as its base does."
)


@dataclass(frozen=True)
class Source:
    """The model as a job would make it, with our weights, and what PEFT loads."""

    spec: JobSpec
    weights_on: Callable[[PreTrainedModel], Mapping[str, Tensor]]
    """Of a model with the weights of the base."""
    peft_folder: Path
    origin: str
    own: tuple[str, ...] = ()
    """The weights that are those of the base."""
    warnings: tuple[str, ...] = ()


def make_bundle(request: MakingRequest) -> MadeBundle:
    """Write the bundle of a model without a job, and return what PEFT says of some rows.

    Raises RefusedAdapter, and the errors of `require_fit` and `load_base`.
    """
    source = _source(request)
    spec = source.spec
    inputs = inputs_of(spec, spec.base)
    replays = _replays(request, inputs)
    device = pick_device()
    chooser = PrecisionChooser(device, request.precision_folder)
    precision = chooser.choose(spec.base, request.precision).choice
    dtype = dtype_of(precision)

    model = _base(spec, dtype, device, seed=1)
    weights = dict(source.weights_on(model))
    adapted = _attached(model, inputs, weights)
    nothing = [NOTHING_LEARNED] if is_without_effect(weights) else []
    tuned, warnings = TunedSpec.of(spec), (*source.warnings, *nothing)
    card = made_card(tuned, source.origin, warnings)
    bundle = request.bundle_folder
    write_adapter_bundle(bundle, adapted, inputs.tokenizer, tuned, precision, card)
    budget = spec.training.micro_batch_tokens
    trained = Trained(spec, adapted, dtype, inputs.tokenizer, bundle, budget)
    reference = parity_reference(trained, replays)
    assert reference is not None, "nothing stops it"
    parameters = adapted.trainable_parameters

    del model, adapted
    gc.collect()  # one base at a time is in memory
    model = _base(spec, dtype, device, seed=2)
    require_own_head(model, {name: weights[name] for name in source.own})
    told = peft_figures(model, source.peft_folder, replays, multi_label=_is_multi_label(spec))
    return MadeBundle(
        tuned=tuned,
        parameters=parameters,
        reference=_as_peft_says(reference, trained, replays, told),
        warnings=warnings,
    )


def _base(spec: JobSpec, dtype: torch.dtype, device: torch.device, *, seed: int) -> PreTrainedModel:
    """Load the base. What it lacks of a classifier's head depends on the seed."""
    labels = spec.objective.labels if isinstance(spec.objective, ClassificationSpec) else ()
    torch.manual_seed(seed)
    with all_or_nothing("The base model"):
        return load_base(spec.base, dtype, device, task=spec.task, labels=len(labels) or None)


def _attached(
    model: PreTrainedModel, inputs: Inputs, weights: Mapping[str, Tensor]
) -> AdaptedModel:
    if family_of(model.config.model_type).layout == "packed":
        use_packed_attention(model)
    adapted = attach(model, inputs.spec.strategy, inputs.tokenizer, prepack=False)
    require_complete(adapted, {name: tuple(each.shape) for name, each in weights.items()})
    copy_weights(adapted, weights)
    return adapted


def _is_multi_label(spec: JobSpec) -> bool:
    return isinstance(spec.objective, ClassificationSpec) and spec.objective.multi_label


def _as_peft_says(
    ours: ParityReference,
    trained: Trained,
    replays: Sequence[Replay],
    told: Sequence[Sequence[float]],
) -> ParityReference:
    """Return the reference with PEFT's figures.

    The effect of rounding is that measured on our model, but around PEFT's figures: an error in
    the import must not count as rounding.
    """
    if not ours.rows:
        return ours
    moved = ours.model_copy(update={"rows": described(trained, replays, told)})
    shifts = [a - b for a, b in zip(moved.figures, ours.figures, strict=True)]
    repeats = tuple(
        each.model_copy(
            update={"figures": tuple(a + b for a, b in zip(each.figures, shifts, strict=True))}
        )
        for each in ours.repeats
    )
    return moved.model_copy(update={"repeats": repeats})


def _source(request: MakingRequest) -> Source:
    match request.source:
        case ImportSource():
            return _imported(request, plan_import(request.base, request.source))
        case SoupSource():
            return _summed(request, request.source)


def _imported(request: MakingRequest, planned: Planned) -> Source:
    assert isinstance(request.source, ImportSource)
    state = read_weights(request.adapter_folder)
    expressed, folder = planned.expressed, request.folder / "peft"
    task, method = PEFT_TASKS[planned.spec.task], request.source.parts.config.method
    named = {name: state[theirs] for name, theirs in expressed.peft_names.items()}
    write_for_peft(folder, method, task, expressed.peft_fields, named)

    return Source(
        spec=planned.spec,
        weights_on=lambda model: our_weights(expressed, state, model),
        peft_folder=folder,
        origin=f"An adapter of PEFT ({method}) that was imported into Tunesmith.",
        own=tuple(name for name, folds in expressed.folds.items() if folds[0].is_of_base),
        warnings=planned.warnings,
    )


def _summed(request: MakingRequest, source: SoupSource) -> Source:
    """Add the bundles. PEFT loads the sum from its bundle, as users will."""
    ingredients = [
        read_ingredient(request.source_folder(index), weight)
        for index, weight in enumerate(source.weights)
    ]
    found = soup(request.base, ingredients)
    shares = ", ".join(f"{weight:g}" for weight in source.weights)
    origin = f"The sum of {len(ingredients)} adapters with the weights {shares}."
    return Source(found.spec, lambda model: found.state, request.bundle_folder, origin)


def _replays(request: MakingRequest, inputs: Inputs) -> list[Replay]:
    """Return rows of every kind that the model can answer, as after training."""
    spec, tokenizer = inputs.spec, inputs.tokenizer
    workspace = Workspace(folder=request.folder)
    has_template = tokenizer.chat_template is not None
    write_rows(workspace.train_file, spec.task, spec.objective, has_template=has_template)
    dataset = load_dataset(inputs, workspace)
    return choose_rows(dataset, spec, workspace, tokenizer)
