"""Every error that Tunesmith raises on purpose.

Each says what was wrong (`message`), where (`param`, the path of the field in the
request) and which kind it is (`code`, a stable word for programs). The API turns them
into OpenAI's envelope in one place, `api/errors.py`; the worker writes them into the
job row. Nothing here knows HTTP.
"""


class TunesmithError(Exception):
    """Base of all our errors."""

    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class InvalidRequest(TunesmithError):
    """The caller asked for something that cannot be done as asked; repeating it will not help."""

    code = "invalid_request"


class Unauthenticated(TunesmithError):
    """No API key, or a wrong one."""

    code = "invalid_api_key"


class Forbidden(TunesmithError):
    """The API key is right, but it may not be used for this."""

    code = "insufficient_permissions"


class NotFound(TunesmithError):
    """The named thing does not exist, or belongs to another project."""

    code = "not_found"


class Conflict(TunesmithError):
    """The thing exists but its state does not allow this move (cancelling a finished job)."""

    code = "conflict"


class TooLarge(TunesmithError):
    """The body or a part of it is over a limit."""

    code = "too_large"


class Unavailable(TunesmithError):
    """A part of the service is away or full; the same request may succeed later."""

    code = "service_unavailable"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int = 5,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.retry_after_seconds = retry_after_seconds


class StaleClaim(TunesmithError):
    """A worker wrote with a fencing token that is no longer the job's: it has lost the job."""

    code = "stale_claim"


class TrainingFailed(TunesmithError):
    """The run cannot go on; `code` names why (`invalid_training_file`, `loss_nonfinite`, …)."""

    code = "training_failed"
