"""The stored failure of a task, which is raised again for the caller."""

from core.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    TooLarge,
    TunesmithError,
    Unavailable,
)
from core.spec.base import Spec

_ERRORS: dict[str, type[TunesmithError]] = {
    error.__name__: error
    for error in (InvalidRequest, NotFound, Conflict, TooLarge, Unavailable, TunesmithError)
}


class TaskFailure(Spec):
    """`code`, `message` and `param` are for users; the other fields restore the error."""

    code: str
    message: str
    param: str | None = None
    error: str = TunesmithError.__name__
    retry_after_seconds: int | None = None

    @classmethod
    def of(cls, error: TunesmithError) -> "TaskFailure":
        name = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
        return cls(
            code=error.code,
            message=error.message,
            param=error.param,
            error=name,
            retry_after_seconds=getattr(error, "retry_after_seconds", None),
        )

    def as_error(self) -> TunesmithError:
        """Return the original error, to be raised in the process that requested the task."""
        kind = _ERRORS[self.error]
        if issubclass(kind, Unavailable) and self.retry_after_seconds is not None:
            return kind(
                self.message,
                param=self.param,
                code=self.code,
                retry_after_seconds=self.retry_after_seconds,
            )
        return kind(self.message, param=self.param, code=self.code)
