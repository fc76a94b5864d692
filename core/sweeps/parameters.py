"""The parameters of a trial: in the body of a job, and as a text."""

import copy
import json
from typing import Any

from core.spec.search import Parameters


def applied(job: dict[str, Any], parameters: Parameters) -> dict[str, Any]:
    """Return the body `job` with the values of a trial.

    A field is set after the one that contains it, so that a trial may choose a strategy and change
    its rank.
    """
    body = copy.deepcopy(job)
    for path in sorted(parameters, key=lambda path: path.count(".")):
        *parents, field = path.split(".")
        place = body
        for parent in parents:
            inside = place.get(parent)
            if not isinstance(inside, dict):
                inside = place[parent] = {}
            place = inside
        place[field] = copy.deepcopy(parameters[path])
    return body


def described(parameters: Parameters) -> str:
    """Return the parameters of a trial as a short text."""
    return ", ".join(f"{path}={json.dumps(value)}" for path, value in parameters.items())
