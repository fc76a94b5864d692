"""One training run from a job spec to a bundle, as a stream of events.

The recipe computes and writes files; it knows no database, no queue and no callbacks. A test is
`list(train(spec, workspace, stop))`.
"""

import math
import time
from collections.abc import Callable, Iterator

import torch

from core.artifacts.bundle import BundleContents, write_bundle
from core.artifacts.card import CardFacts
from core.batching.order import derived_seed, steps_of_epoch
from core.errors import TrainingFailed
from core.evaluation.validation import validate
from core.models.attention import use_packed_attention
from core.models.load import load_base, load_config, load_tokenizer
from core.models.precision import pick_device, resolve_precision
from core.objectives.choose import choose_objective
from core.spec.events import (
    CheckpointSaved,
    DatasetValidated,
    Evaluated,
    ModelReady,
    PhaseStarted,
    RunEvent,
    RunFinished,
    StepDone,
)
from core.spec.run import JobSpec, Workspace
from core.strategies.attach import attach
from core.training.checkpoint import save_checkpoint
from core.training.data import load_rows
from core.training.optimiser import apply_gradients, build_optimiser, clip_gradients
from core.training.schedule import learning_rate
from core.training.step import accumulate_gradients


def train(spec: JobSpec, workspace: Workspace, stop: Callable[[], bool]) -> Iterator[RunEvent]:
    """Yield what happens, ending with RunFinished; end early when `stop` turns true.

    `stop` is asked before every micro-batch. Raises TrainingFailed when the run cannot go on:
    `invalid_training_file`, `invalid_validation_file` (both name the line), `loss_nonfinite`;
    NotFound `base_not_found`.
    """
    hyper = spec.training
    device = pick_device()
    dtype = resolve_precision(hyper.precision, device)

    yield PhaseStarted(phase="preparing data")
    tokenizer, config = load_tokenizer(spec.base), load_config(spec.base)
    objective = choose_objective(spec, tokenizer)
    rows = load_rows(workspace.train_file, "training_file", objective, config, hyper)
    validation_rows = []
    if workspace.validation_file.exists():
        path = workspace.validation_file
        validation_rows = load_rows(path, "validation_file", objective, config, hyper)
    total_steps = hyper.epochs * math.ceil(len(rows) / hyper.batch_size)
    dataset = DatasetValidated(
        rows=len(rows),
        validation_rows=len(validation_rows),
        tokens=sum(row.length for row in rows),
        targets=sum(row.targets for row in rows),
        total_steps=total_steps,
    )
    yield dataset

    yield PhaseStarted(phase="loading model")
    model = load_base(spec.base, dtype, device)
    use_packed_attention(model)
    torch.manual_seed(spec.seed)
    adapted = attach(model, spec.strategy, tokenizer)
    objective.prepare(adapted, [*rows, *validation_rows], hyper.micro_batch_tokens)
    optimiser = build_optimiser(adapted.parameters, hyper)
    ready = ModelReady(
        trainable_parameters=adapted.trainable_parameters,
        total_parameters=adapted.total_parameters,
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        device=str(device),
    )
    yield ready

    history: list[RunEvent] = []  # what the model card plots

    def bundle() -> BundleContents:
        facts = CardFacts(spec.base, spec, dataset, ready)
        return BundleContents(adapted.config, adapted.state(), tokenizer, facts, tuple(history))

    yield PhaseStarted(phase="training")
    step = 0
    for epoch in range(1, hyper.epochs + 1):
        for indices in steps_of_epoch(spec.seed, epoch, len(rows), hyper.batch_size):
            step += 1
            started = time.perf_counter()
            rate = learning_rate(hyper, step, total_steps)
            sums = accumulate_gradients(
                adapted,
                objective,
                [rows[index] for index in indices],
                hyper.micro_batch_tokens,
                derived_seed(spec.seed, step),
                stop,
            )
            if sums is None:
                return
            norm = clip_gradients(adapted.parameters, hyper.max_grad_norm)
            _require_finite(sums.loss, norm, step, hyper.learning_rate)
            apply_gradients(optimiser, rate)
            done = StepDone(
                step=step,
                total_steps=total_steps,
                epoch=epoch,
                loss=sums.loss / sums.targets,
                accuracy=sums.correct / sums.targets,
                learning_rate=rate,
                gradient_norm=norm,
                tokens=sums.tokens,
                targets=sums.targets,
                seconds=time.perf_counter() - started,
            )
            history.append(done)
            yield done

        validation = None
        if validation_rows:
            budget = hyper.micro_batch_tokens
            validation = validate(adapted, objective, validation_rows, budget, stop)
            if validation is None:
                return
            evaluated = Evaluated(step=step, loss=validation.loss, accuracy=validation.accuracy)
            history.append(evaluated)
            yield evaluated
        save_checkpoint(workspace, step, bundle())
        yield CheckpointSaved(
            step=step,
            folder=workspace.checkpoint_folder(step),
            train_loss=done.loss,
            train_accuracy=done.accuracy,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
        )

    yield PhaseStarted(phase="bundling")
    manifest = write_bundle(workspace.bundle_folder, bundle())
    yield RunFinished(
        folder=workspace.bundle_folder,
        weights_sha256=manifest.weights_sha256,
        trained_tokens=hyper.epochs * dataset.tokens,
    )


def _require_finite(loss: float, gradient_norm: float, step: int, rate: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        raise TrainingFailed(
            f"The loss or its gradient is no longer finite at step {step} (loss {loss}, gradient "
            f"norm {gradient_norm}). Lower the learning rate ({rate:g}) or lengthen the warmup.",
            code="loss_nonfinite",
        )
