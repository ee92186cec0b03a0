"""`/dashboard`: one page without a build step, and the JSON it polls. FastAPI; called by app.

The page may load nothing from anywhere else: its Content-Security-Policy says so, and browsers hold it to that.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from msgspec.json import Encoder

from router.dashboard.views import DashboardViews

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_encode = Encoder().encode


def dashboard_routes(views: DashboardViews) -> APIRouter:
    """The page, and `/dashboard/data`."""
    routes = APIRouter(prefix="/dashboard", tags=["dashboard"])
    page = files("router.dashboard").joinpath("index.html").read_text("utf-8")

    @routes.get("", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": POLICY, "cache-control": "no-cache"})

    @routes.get("/data")
    async def data() -> Response:
        return Response(_encode(views.page()), media_type="application/json", headers={"cache-control": "no-store"})

    return routes
