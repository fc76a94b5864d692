"""Errors of the jobs of a sweep, by the fields of the sweep."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from core.errors import TunesmithError
from core.spec.search import Parameters
from core.sweeps.parameters import described

SHOWN_TRIALS = 5
"""Of invalid trials, in an error."""


@contextmanager
def naming_the_job() -> Iterator[None]:
    """Let errors of the block, about a field of a job, name it as a field of the body's job."""
    try:
        yield
    except TunesmithError as error:
        error.param = None if error.param is None else f"job.{error.param}"
        raise


def error_of(
    faults: Sequence[tuple[int, TunesmithError]], trials: Sequence[Parameters]
) -> TunesmithError:
    """Return one error, of the kind of the first fault, with the faults of the first trials."""
    number, first = faults[0]
    if len(faults) == len(trials) and len({fault.message for _, fault in faults}) == 1:
        message = f"All trials: {first.message}"
    else:
        shown = [
            f"Trial {each} ({described(trials[each])}): {fault.message}"
            for each, fault in faults[:SHOWN_TRIALS]
        ]
        if more := faults[SHOWN_TRIALS:]:
            shown.append(f"Also invalid: trials {', '.join(str(each) for each, _ in more)}.")
        message = " ".join(shown)
    return type(first)(message, param=_param(first.param, trials[number]), code=first.code)


def _param(param: str | None, parameters: Parameters) -> str | None:
    """Return the field of the sweep that a field of a trial comes from."""
    if param is None:
        return None
    for path in sorted(parameters, key=len, reverse=True):
        if param == path or param.startswith((f"{path}.", f"{path}[")):
            return f"search.parameters.{path}"
    return f"job.{param}"
