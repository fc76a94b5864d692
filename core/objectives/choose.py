"""Creates the objective of a job's spec."""

from typing import Any, assert_never

from transformers import PreTrainedTokenizerFast

from core.batching.template import TemplateContext
from core.catalog.objectives import OBJECTIVES
from core.catalog.strategies import virtual_tokens
from core.errors import InvalidRequest
from core.objectives.answers import Reference
from core.objectives.classification import Classification
from core.objectives.dpo import Dpo
from core.objectives.kto import Kto
from core.objectives.objective import Objective
from core.objectives.orpo import Orpo
from core.objectives.pretraining import Pretraining
from core.objectives.seq2seq import SequenceToSequence
from core.objectives.simpo import Simpo
from core.objectives.supervised import Supervised
from core.spec.job import JobSpec
from core.spec.objective import (
    ClassificationSpec,
    DpoSpec,
    KtoSpec,
    OrpoSpec,
    PretrainingSpec,
    SimpoSpec,
    SupervisedSpec,
)


def choose_objective(spec: JobSpec, tokenizer: PreTrainedTokenizerFast) -> Objective[Any]:
    """Return the job's objective for models of the job's task.

    Raises InvalidRequest if the objective does not support the task.
    """
    objective, context = spec.objective, template_context(spec)
    if spec.task not in OBJECTIVES[objective.type].tasks:
        raise InvalidRequest(
            f"The objective {objective.type} cannot train a model for {spec.task}.",
            param="objective",
        )
    reference = Reference(continues=spec.parent is not None)
    match objective:
        case SupervisedSpec():
            seq2seq = spec.task == "seq2seq"
            return (SequenceToSequence if seq2seq else Supervised)(tokenizer, context)
        case PretrainingSpec():
            return Pretraining(tokenizer, _longest_text(spec, tokenizer))
        case DpoSpec(beta=beta, label_smoothing=smoothing):
            return Dpo(tokenizer, beta, smoothing, reference, context)
        case OrpoSpec(beta=beta):
            return Orpo(tokenizer, beta, context)
        case SimpoSpec(beta=beta, gamma=gamma):
            return Simpo(tokenizer, beta, gamma, context)
        case KtoSpec():
            weights = objective.desirable_weight, objective.undesirable_weight
            longest = spec.training.max_length
            return Kto(tokenizer, objective.beta, *weights, longest, reference, context)
        case ClassificationSpec(labels=labels, multi_label=multi_label):
            return Classification(tokenizer, labels, multi_label)
        case _:
            assert_never(objective)


def template_context(spec: JobSpec) -> TemplateContext:
    """Return the context of chat templates in this job."""
    return TemplateContext(spec.chat_template_kwargs, spec.template_time)


def _longest_text(spec: JobSpec, tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the number of text tokens that fit beside the strategy's virtual tokens."""
    room = tokenizer.model_max_length - virtual_tokens(spec.strategy)
    return min(spec.training.max_length, room)
