"""Loads and checks what turns examples into rows, in the same way for a run and a mask."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from core.catalog.room import room_for_rows, within_context
from core.models.load import context_of, load_config, load_tokenizer
from core.objectives.choose import choose_objective
from core.objectives.objective import Objective
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.training.preflight import require_fit


@dataclass(frozen=True)
class Inputs:
    """A job with the tokenizer, the config and the objective of its rows."""

    spec: JobSpec
    tokenizer: PreTrainedTokenizerFast
    config: PreTrainedConfig
    objective: Objective[Any]

    @property
    def longest_row(self) -> int:
        """The maximum tokens of a row for the base, regardless of the job's limit."""
        return room_for_rows(self.spec.strategy, context_of(self.config))


def inputs_of(spec: JobSpec, base: BaseModelSpec) -> Inputs:
    """Load the inputs of a job on `base`.

    Rows of the objective never exceed the base's context. Raises the errors of `load_config` and
    `require_fit`.
    """
    tokenizer, config = load_tokenizer(base), load_config(base)
    require_fit(spec, config, tokenizer)
    training = within_context(spec.training, spec.strategy, context_of(config))
    fitted = spec.model_copy(update={"training": training})
    return Inputs(spec, tokenizer, config, choose_objective(fitted, tokenizer))
