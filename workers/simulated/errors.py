"""What can go wrong with a call to the simulated worker, with SGLang's status and error type.

BadOption               at start: an option, or a file it names, cannot be used

ApiError
├── BadRequest          400, type "BadRequest" or "BadRequestError", as the real routes choose
├── InvalidBody         400, type "Bad Request": what FastAPI's validation refuses
├── Aborted             the request was aborted; carries no answer for a client that has left
└── Unavailable         503
"""

from __future__ import annotations


class ApiError(Exception):
    """An error answer: `status`, `message`, and `kind`, the error type in the body."""

    status = 500
    kind = "InternalServerError"

    def __init__(self, message: str, *, kind: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if kind is not None:
            self.kind = kind


class BadRequest(ApiError):
    """The request is understood and refused."""

    status = 400
    kind = "BadRequestError"


class InvalidBody(ApiError):
    """The body is no JSON, or not of the route's shape."""

    status = 400
    kind = "Bad Request"


class Aborted(ApiError):
    """The request was aborted before it had an answer."""

    status = 400
    kind = "BadRequestError"


class Unavailable(ApiError):
    """The worker does not answer now."""

    status = 503
    kind = "503"


class NotFound(ApiError):
    """No such object."""

    status = 404
    kind = "invalid_request_error"


class BadOption(ValueError):
    """An option, or a file that an option names, cannot be used. The message names it. Raised at start only."""
