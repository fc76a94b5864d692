"""From a job's spec to its objective."""

from typing import Any

from transformers import PreTrainedTokenizerFast

from core.errors import InvalidRequest
from core.objectives.objective import Objective
from core.objectives.supervised import Supervised
from core.spec.objective import SupervisedSpec
from core.spec.run import JobSpec


def choose_objective(spec: JobSpec, tokenizer: PreTrainedTokenizerFast) -> Objective[Any]:
    """Return the objective that the job names, for models of the job's task."""
    match spec.objective:
        case SupervisedSpec():
            return Supervised(tokenizer)
        case _:
            raise InvalidRequest(f"{spec.objective.type} is not built yet.", param="objective")
