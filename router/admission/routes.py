"""GET /queue: who waits, who runs, who is held until a worker has room, what was refused. FastAPI; called by app."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter

from router.admission.admission import Admission


def queue_routes(admission: Admission, held: Callable[[], Mapping[str, Any]]) -> APIRouter:
    routes = APIRouter(tags=["queue"])

    @routes.get("/queue")
    async def show_queue() -> dict[str, Any]:
        return {**admission.view(), "held": held()}

    return routes
