"""What turns the examples of a job into rows: read and checked once, for a run and for a mask."""

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
        """Tokens that the base can take of a row, whatever the job allows."""
        return room_for_rows(self.spec.strategy, context_of(self.config))


def inputs_of(spec: JobSpec, base: BaseModelSpec) -> Inputs:
    """Return what rows are made with for a job on `base`.

    The objective makes no longer rows than the base takes. Raises the errors of `load_config` and
    `require_fit`.
    """
    tokenizer, config = load_tokenizer(base), load_config(base)
    require_fit(spec, config, tokenizer)
    training = within_context(spec.training, spec.strategy, context_of(config))
    fitted = spec.model_copy(update={"training": training})
    return Inputs(spec, tokenizer, config, choose_objective(fitted, tokenizer))
