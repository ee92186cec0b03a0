"""GET /queue: who waits, who runs, what was refused. FastAPI; called by app."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from router.admission.admission import Admission


def queue_routes(admission: Admission) -> APIRouter:
    routes = APIRouter(tags=["queue"])

    @routes.get("/queue")
    async def show_queue() -> dict[str, Any]:
        return dict(admission.view())

    return routes
