"""Every way a request, or the router's start, can fail.

    RouterError
    ├── ClientError            the client's fault; never retried
    │   ├── InvalidBody          400  not JSON, not an object, or empty
    │   ├── InvalidField         400  a field is missing or of the wrong type; names it
    │   ├── BodyTooLarge         413
    │   ├── RequestTooSlow       408  nothing more of it came for too long
    │   ├── HeadersTooLarge      431
    │   ├── UnknownModel         404  no worker serves it; names those that are served
    │   ├── UnknownPath          404
    │   ├── MethodNotAllowed     405
    │   ├── UnknownWorker        404  admin routes
    │   ├── UnknownRequest       404  /explain: not among the last requests
    │   ├── WorkerExists         409  admin routes
    │   ├── ExperimentRunning    409  /experiment: only one at a time
    │   ├── NoExperiment         404  /experiment: nothing to stop
    │   ├── InvalidApiKey        401
    │   ├── ModelForbidden       403  the key is not for this model
    │   ├── AdminOnly            403  control routes
    │   ├── ForeignPage          403  control routes: another site's page in a browser
    │   ├── RateLimited          429  the key's requests a second
    │   ├── ConcurrencyLimited   429  the key's requests at once
    │   └── ClientGone           499  hung up; nobody reads the answer
    ├── WorkerError            a worker's fault
    │   ├── WorkerUnreachable    502  no connection could be made; safe to retry
    │   ├── WorkerHungUp         502  closed before the answer was complete; safe to retry until the first byte
    │   ├── WorkerTimeout        504  names the deadline that passed; safe to retry until the first byte
    │   ├── WorkerRefused        its own 5xx, handed on if no other worker answers
    │   │   └── WorkerBusy         its own 429 or 503: full, not broken
    │   └── StreamCut            502  the stream ended early; told inside the stream
    └── RouterFault            ours
        ├── NoWorker             503  no worker is ready
        ├── DeadlineExceeded     504  the whole request took too long; names the deadline
        ├── QueueFull            503  as many wait as may
        ├── QueueTimeout         503  waited as long as it may
        ├── ProcessGone          503  another process of this router ended, or did not answer in time
        ├── RouterStopping       503  the router stops and this request was not done in time
        ├── InternalError        500
        └── ConfigError          start-up: names the key and the nearest valid one

Each class fixes its HTTP status, whether a retry elsewhere is safe, and who is at fault. Bodies have OpenAI's shape.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

Fault = Literal["client", "worker", "router"]


class RouterError(Exception):
    """Base of all. `message` is one sentence that says what was wrong and what to do; `param` names a body field."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    fault: ClassVar[Fault] = "router"
    retry_safe: ClassVar[bool] = False
    closes: ClassVar[bool] = False  # the connection ends with this answer

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """OpenAI's error object as JSON bytes; `source` says whose fault it was (client, worker or router)."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
            "source": self.fault,
        }
        return msgspec.json.encode({"error": error})


class ClientError(RouterError):
    status = 400
    code = "invalid_request"
    kind = "invalid_request_error"
    fault = "client"


class InvalidBody(ClientError):
    code = "invalid_body"


class InvalidField(ClientError):
    code = "invalid_field"


class BodyTooLarge(ClientError):
    status = 413
    code = "body_too_large"
    closes = True  # the rest of the body is not read


class RequestTooSlow(ClientError):
    status = 408
    code = "request_too_slow"
    closes = True


class HeadersTooLarge(ClientError):
    status = 431
    code = "headers_too_large"


class UnknownModel(ClientError):
    status = 404
    code = "model_not_found"


class UnknownPath(ClientError):
    status = 404
    code = "unknown_path"


class MethodNotAllowed(ClientError):
    status = 405
    code = "method_not_allowed"


class UnknownWorker(ClientError):
    status = 404
    code = "worker_not_found"


class UnknownRequest(ClientError):
    status = 404
    code = "request_not_found"


class WorkerExists(ClientError):
    status = 409
    code = "worker_exists"


class ExperimentRunning(ClientError):
    status = 409
    code = "experiment_running"


class NoExperiment(ClientError):
    status = 404
    code = "no_experiment"


class InvalidApiKey(ClientError):
    status = 401
    code = "invalid_api_key"
    kind = "authentication_error"


class ModelForbidden(ClientError):
    status = 403
    code = "model_forbidden"
    kind = "permission_error"


class AdminOnly(ClientError):
    status = 403
    code = "admin_only"
    kind = "permission_error"


class ForeignPage(ClientError):
    status = 403
    code = "foreign_page"
    kind = "permission_error"


class RateLimited(ClientError):
    status = 429
    code = "rate_limited"
    kind = "rate_limit_error"


class ConcurrencyLimited(ClientError):
    status = 429
    code = "concurrency_limited"
    kind = "rate_limit_error"


class ClientGone(ClientError):
    status = 499
    code = "client_gone"


class WorkerError(RouterError):
    status = 502
    code = "worker_error"
    fault = "worker"


class WorkerUnreachable(WorkerError):
    code = "worker_unreachable"
    retry_safe = True


class WorkerHungUp(WorkerError):
    code = "worker_hung_up"
    retry_safe = True


class WorkerTimeout(WorkerError):
    status = 504
    code = "worker_timeout"
    kind = "timeout_error"
    retry_safe = True


class WorkerRefused(WorkerError):
    status = 503
    code = "worker_refused"
    retry_safe = True


class WorkerBusy(WorkerRefused):
    code = "worker_busy"


class StreamCut(WorkerError):
    code = "stream_cut"


class RouterFault(RouterError):
    pass


class NoWorker(RouterFault):
    status = 503
    code = "no_worker_ready"
    kind = "service_unavailable_error"


class DeadlineExceeded(RouterFault):
    status = 504
    code = "deadline_exceeded"
    kind = "timeout_error"


class QueueFull(RouterFault):
    status = 503
    code = "queue_full"
    kind = "service_unavailable_error"


class QueueTimeout(RouterFault):
    status = 503
    code = "queue_timeout"
    kind = "service_unavailable_error"


class RouterStopping(RouterFault):
    status = 503
    code = "router_stopping"
    kind = "service_unavailable_error"
    closes = True


class ProcessGone(RouterFault):
    status = 503
    code = "process_gone"
    kind = "service_unavailable_error"


class InternalError(RouterFault):
    pass


class ConfigError(RouterFault):
    code = "config_error"
