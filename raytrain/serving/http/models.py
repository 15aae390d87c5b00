"""/v1/models: what may be asked."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from raytrain.serving.backend import Backend, ModelCard
from raytrain.serving.http.errors import refusals_told, unknown_model
from raytrain.serving.http.record import record_of
from raytrain.serving.http.shapes import ModelAnswer, ModelList


def model_routes(backend: Backend) -> APIRouter:
    """What this key may ask, and nothing else."""
    routes = APIRouter(tags=["models"], prefix="/v1/models")

    @routes.get("", response_model=None, responses={200: {"model": ModelList}})
    async def list_models(request: Request) -> Response:
        """The base model, and what the registry has released over it."""
        told: ModelList = {"object": "list", "data": [_told(one) for one in await cards(request)]}
        return JSONResponse(told)

    @routes.get("/{model:path}", response_model=None, responses={200: {"model": ModelAnswer}})
    async def find_model(request: Request, model: str) -> Response:
        """One of those that are listed."""
        known = await cards(request)
        found = next((one for one in known if one.id == model), None)
        if found is None:
            raise unknown_model(model, [one.id for one in known])
        return JSONResponse(_told(found))

    async def cards(request: Request) -> list[ModelCard]:
        record = record_of(request)
        with refusals_told(record.may_use):
            found = await backend.models()
        return [one for one in found if record.may_use(one.id)]

    return routes


def _told(card: ModelCard) -> ModelAnswer:
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": "raytrain",
        "raytrain": {
            "digest": card.digest,
            "task": card.task,
            "aliases": list(card.aliases),
            "is_loaded": card.is_loaded,
            "version": card.version,
        },
    }
