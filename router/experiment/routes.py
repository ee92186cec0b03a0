"""`/experiment`: start, watch and stop an experiment over HTTP. FastAPI; called by app and by `trieway experiment`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgspec
from fastapi import APIRouter, Request

from router.errors import InvalidBody, InvalidField
from router.experiment.config import ExperimentConfig
from router.experiment.desk import ExperimentDesk


def experiment_routes(desk: ExperimentDesk) -> APIRouter:
    """GET shows the running experiment and the last ones, POST starts one, DELETE stops it."""
    routes = APIRouter(prefix="/experiment", tags=["experiment"])

    @routes.get("")
    async def show() -> dict[str, Any]:
        return {"running": desk.now(), "past": list(desk.past)}

    @routes.post("", status_code=201)
    async def start(request: Request) -> dict[str, Any]:
        _require_json(request.headers.get("content-type", ""))
        desk.start(wanted(await request.body()))
        return desk.now() or {}

    @routes.delete("")
    async def stop() -> dict[str, Any]:
        return desk.stop()

    return routes


def _require_json(content_type: str) -> None:
    """A page of another site cannot send this type without asking first, so no page can start an experiment."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidBody("Send the experiment as JSON, with the header content-type: application/json.")


def wanted(body: bytes) -> ExperimentConfig:
    """The experiment that a JSON body describes. Raises InvalidBody or InvalidField, which names the field."""
    try:
        data = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidBody(f"The body is not valid JSON: {error}.") from error
    if not isinstance(data, dict):
        raise InvalidBody('The body must be a JSON object like {"arms": ["a=round_robin", "b=prefix_match"]}.')
    known = [each.name for each in fields(ExperimentConfig)]
    for name in data:
        if name not in known:
            raise InvalidField(f"An experiment has no field {name!r}. It has: {', '.join(known)}.", param=str(name))
    try:
        return msgspec.convert(data, ExperimentConfig, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidField(f"{str(error).replace('`$.', '`')}.", param="experiment") from error
