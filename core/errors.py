"""Every error that Tunesmith raises on purpose.

Each has a message, the path of the field in the request (`param`), and a stable code for programs.
`api/errors.py` turns them into OpenAI's envelope; the worker stores them in the job. They are
independent of HTTP.
"""


class TunesmithError(Exception):
    """The base of all errors."""

    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class InvalidRequest(TunesmithError):
    """The request is invalid; repeating it will not help."""

    code = "invalid_request"


class Unauthenticated(TunesmithError):
    """No API key, or a wrong one."""

    code = "invalid_api_key"


class Forbidden(TunesmithError):
    """The API key is right, but it may not be used for this."""

    code = "insufficient_permissions"


class NotFound(TunesmithError):
    """The object does not exist, or belongs to another project."""

    code = "not_found"


class Conflict(TunesmithError):
    """The state of the object does not allow the operation, such as cancelling a finished job."""

    code = "conflict"


class TooLarge(TunesmithError):
    """The body or a part of it exceeds a limit."""

    code = "too_large"


class Unavailable(TunesmithError):
    """A part of the service is unavailable or full; the same request may succeed later."""

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
    """The run failed; `code` is the reason (`invalid_training_file`, `loss_nonfinite`, …)."""

    code = "training_failed"
