"""Which path is answered by what, who may call it, and how an error becomes an answer. Called by server.py per request.

The only file that lists the routes. Statuses and bodies of errors are SGLang's: see errors.py. Not here: faults.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from workers.simulated import info_api, messages_api, native_api, openai_api, pooling_api, responses_api
from workers.simulated.errors import Aborted, ApiError, BadRequest
from workers.simulated.info_api import Handler, fixed_text
from workers.simulated.options import Options
from workers.simulated.reply import JSON, Reply, Request


class Access(Enum):
    """Which key opens a route, when keys are set."""

    NORMAL = "the API key"
    ADMIN = "the admin key, or the API key where there is no admin key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path. `json_only` routes refuse other content types, as SGLang's /v1 routes do."""

    methods: frozenset[str]
    handler: Handler
    access: Access = Access.NORMAL
    json_only: bool = False


def _get(handler: Handler) -> Route:
    return Route(methods=frozenset({"GET"}), handler=handler)


def _post(handler: Handler, access: Access = Access.NORMAL) -> Route:
    return Route(methods=frozenset({"POST"}), handler=handler, access=access)


def _json(handler: Handler, *methods: str) -> Route:
    return Route(methods=frozenset(methods or {"POST"}), handler=handler, json_only=True)


def _any(handler: Handler, access: Access = Access.NORMAL) -> Route:
    return Route(methods=frozenset({"GET", "POST"}), handler=handler, access=access)


ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": _json(openai_api.chat_completions),
    "/v1/completions": _json(openai_api.completions),
    "/v1/responses": _json(responses_api.responses),
    "/v1/responses/": _get(responses_api.stored),
    "/v1/messages": _json(messages_api.messages),
    "/v1/messages/count_tokens": _json(messages_api.count_tokens),
    "/v1/embeddings": _json(pooling_api.embeddings),
    "/v1/rerank": _json(pooling_api.rerank, "POST", "PUT"),
    "/v1/score": _json(pooling_api.score),
    "/v1/classify": _json(pooling_api.classify),
    "/generate": _json(native_api.generate, "POST", "PUT"),
    "/v1/models": _get(info_api.models),
    "/v1/models/": _get(info_api.model),
    "/model_info": _get(info_api.model_info),
    "/get_model_info": _get(info_api.model_info),
    "/server_info": _get(info_api.server_info),
    "/get_server_info": _get(info_api.server_info),
    "/v1/loads": _get(info_api.loads),
    "/health": _get(info_api.health),
    "/health_generate": _get(info_api.health),
    "/ready": _get(info_api.ready),
    "/ping": _get(fixed_text(b"")),
    "/": Route(methods=frozenset({"GET", "HEAD"}), handler=fixed_text(b'"SGLang is running"', JSON)),
    "/tokenize": _json(native_api.tokenize),
    "/v1/tokenize": _json(native_api.tokenize),
    "/detokenize": _json(native_api.detokenize),
    "/v1/detokenize": _json(native_api.detokenize),
    "/flush_cache": _any(native_api.flush_cache, Access.ADMIN),
    "/abort_request": _post(native_api.abort_request, Access.ADMIN),
    "/start_profile": _any(fixed_text(b"Start profiling.\n"), Access.ADMIN),
    "/stop_profile": _any(fixed_text(b"Stop profiling. This will take some time.\n"), Access.ADMIN),
}


def find(path: str) -> Route | None:
    """The route of a path; all names below /v1/models/ are one route, and so are those below /v1/responses/."""
    route = ROUTES.get(path)
    if route is None:
        for prefix in ("/v1/models/", "/v1/responses/"):
            if path.startswith(prefix):
                return ROUTES[prefix]
    return route


def template(path: str) -> str:
    """The path of a known route as metrics name it."""
    if path in ROUTES:
        return path
    return "/v1/models/{model:path}" if path.startswith("/v1/models/") else "/v1/responses/{response_id}"


def refused(options: Options, route: Route | None, request: Request) -> bool:
    """Whether the request lacks the key that its route wants; unknown paths want the API key."""
    if request.method == "OPTIONS" or request.path.startswith(("/health", "/ready", "/metrics")):
        return False
    wanted = options.api_key
    if route is not None and route.access is Access.ADMIN and options.admin_api_key:
        wanted = options.admin_api_key
    if not wanted:
        return False
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() != "bearer" or not secrets.compare_digest(token.encode(), wanted.encode())


def check_content_type(route: Route, request: Request) -> None:
    """Raises BadRequest where a JSON body is wanted and not declared."""
    if route.json_only:
        media = request.headers.get("content-type", "").lower().partition(";")[0]
        if media != "application/json":
            raise BadRequest("Unsupported Media Type: Only 'application/json' is allowed", kind="Bad Request")


def answer_error(request: Request, reply: Reply, error: ApiError) -> None:
    """The error as the route's dialect spells it; nothing for a client that has left."""
    if reply.closed or (isinstance(error, Aborted) and reply.started):
        return
    if request.path.startswith("/v1/messages"):
        reply.send_json(
            {"type": "error", "error": {"type": messages_api.error_type(error), "message": error.message}},
            error.status,
        )
    elif request.path.startswith("/v1/responses"):
        nested = {"message": error.message, "type": error.kind, "param": error.param, "code": error.status}
        reply.send_json({"error": nested}, error.status)
    else:
        body = {
            "object": "error",
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.status,
        }
        reply.send_json(body, error.status)
