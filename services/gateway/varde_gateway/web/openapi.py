"""The OpenAPI document: what FastAPI derives from the routes, completed from the tables that the routes obey.

Who may call what comes from ``access``, the problems from ``errors``; a route that reads its body itself names a model
in ``openapi_extra`` and the model is put in here.
"""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from varde_gateway.web.access import ACCESS, PUBLIC
from varde_gateway.web.alert_schemas import (
    AcknowledgementOrder,
    AlertOrder,
    CancelOrder,
    UpdateOrder,
    WebhookOrder,
)
from varde_gateway.web.errors import PROBLEM_MEDIA_TYPE, PROBLEMS, problem_type
from varde_gateway.web.review_schemas import ErasureOrder, QueryOrder
from varde_gateway.web.roster_schemas import ProposalOrder, SuspensionOrder, VoteOrder
from varde_gateway.web.schemas import (
    AnswerModel,
    ProblemDetails,
    SensorOrder,
    SignInForm,
    UserEnd,
    UserOrder,
)

_BODIES: Final = (
    AcknowledgementOrder,
    AlertOrder,
    CancelOrder,
    ErasureOrder,
    ProblemDetails,
    ProposalOrder,
    QueryOrder,
    SensorOrder,
    SignInForm,
    SuspensionOrder,
    UpdateOrder,
    UserEnd,
    UserOrder,
    VoteOrder,
    WebhookOrder,
)
_REFERENCE: Final = "#/components/schemas/{model}"
_WITH_TOKEN: Final = (401, 403)
_WITH_BODY: Final = (400, 413, 415, 422)
_ALWAYS: Final = (503,)
_DESCRIPTION: Final = """\
The API of one nation's node. Sign in at `POST /v1/auth/token`, send the token as `Authorization: Bearer`.

Every failure is an RFC 9457 problem document. Lists are pages: `?limit=`, and `?cursor=` with the `next_cursor` of the
page before. A POST that sends something takes an `Idempotency-Key`: repeated within 24 hours it gets the same answer."""


def describe(api: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if api.openapi_schema is not None:
        return api.openapi_schema
    document = get_openapi(
        title=api.title,
        version=api.version,
        summary="Secure federated alerting between nations",
        description=_DESCRIPTION,
        routes=api.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _, bodies = models_json_schema(
        [(each, "validation") for each in _BODIES], ref_template=_REFERENCE
    )
    schemas.update(bodies["$defs"])
    _restore_examples(schemas, AnswerModel)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT (EdDSA)"}
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(operation, path, method.upper())
    api.openapi_schema = document
    return document


def _restore_examples(schemas: dict[str, Any], parent: type[BaseModel]) -> None:
    # FastAPI drops every null from what it describes, and with it members that an example must have.
    for model in parent.__subclasses__():
        extra = model.model_config.get("json_schema_extra")
        if model.__name__ in schemas and isinstance(extra, dict):
            schemas[model.__name__].update(extra)
        _restore_examples(schemas, model)


def _complete(operation: dict[str, Any], path: str, method: str) -> None:
    allowed = ACCESS[method, path]
    statuses = {*_ALWAYS}
    if allowed != PUBLIC:
        operation["security"] = [{"bearer": []}]
        operation["x-varde-roles"] = sorted(allowed)
        statuses.update(_WITH_TOKEN)
    if "requestBody" in operation:
        statuses.update(_WITH_BODY)
    if "parameters" in operation:
        statuses.add(422)
    responses = operation["responses"]
    for status in sorted(statuses | {int(each) for each in responses}):
        # What FastAPI says of 422 is its own form of errors, which is not ours.
        described = responses.get(str(status))
        if (
            described is None
            or "content" not in described
            or status == HTTPStatus.UNPROCESSABLE_ENTITY
        ):
            responses[str(status)] = _problem(HTTPStatus(status))


def _problem(status: HTTPStatus) -> dict[str, Any]:
    kinds = {each.slug: each for each in PROBLEMS.values() if each.status == status}
    return {
        "description": " or ".join(each.title for each in kinds.values()) or status.phrase,
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": {"$ref": _REFERENCE.format(model=ProblemDetails.__name__)},
                "examples": {
                    slug: {
                        "value": {
                            "type": problem_type(each),
                            "title": each.title,
                            "status": each.status,
                            "detail": "What happened, and what to do.",
                            "instance": "/v1/…",
                        }
                    }
                    for slug, each in kinds.items()
                },
            }
        },
    }
