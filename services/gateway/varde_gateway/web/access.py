"""Who may call what: one table, checked by one dependency before anything else of a request is looked at.

A route without an entry is closed to everybody.
"""

from typing import Final, Literal

from fastapi import Request

from varde.bulletin import Tlp
from varde_gateway.flow.faults import Forbidden
from varde_gateway.flow.people.users import Role
from varde_gateway.flow.review.looks import Look
from varde_gateway.web.auth import Identity
from varde_gateway.web.parts import parts_of

PUBLIC: Final = "public"
"""No token needed: the route is open, or checks something else, such as a webhook's signature."""

_EVERYBODY: Final = frozenset(Role)
_READERS: Final = frozenset({Role.OPERATOR, Role.OFFICER, Role.APPROVER, Role.AUDITOR})
_OPERATORS: Final = frozenset({Role.OPERATOR})
_OFFICERS: Final = frozenset({Role.OFFICER})
_AUDITORS: Final = frozenset({Role.AUDITOR})
_ADMINS: Final = frozenset({Role.ADMIN})
_OVERSEERS: Final = frozenset({Role.ADMIN, Role.AUDITOR})

ACCESS: Final[dict[tuple[str, str], frozenset[Role] | Literal["public"]]] = {
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("POST", "/v1/auth/token"): PUBLIC,
    ("GET", "/v1/auth/me"): _EVERYBODY,
    ("POST", "/v1/alerts"): _OPERATORS,
    ("GET", "/v1/alerts"): _READERS,
    ("GET", "/v1/alerts/{alert_id}"): _READERS,
    ("GET", "/v1/alerts/{alert_id}/trail"): _READERS,
    ("GET", "/v1/alerts/{alert_id}/evidence"): _READERS,
    ("POST", "/v1/alerts/{alert_id}/erase"): _ADMINS,
    ("POST", "/v1/alerts/{alert_id}/acknowledgements"): _OFFICERS,
    ("POST", "/v1/alerts/{alert_id}/update"): _OPERATORS,
    ("POST", "/v1/alerts/{alert_id}/cancel"): _OPERATORS,
    ("POST", "/v1/attachments"): _OPERATORS,
    ("GET", "/v1/attachments/{attachment_id}"): _READERS,
    ("GET", "/v1/events"): _READERS,
    ("POST", "/v1/hooks/{sensor_id}"): PUBLIC,
    ("GET", "/v1/sensors"): _OVERSEERS,
    ("POST", "/v1/sensors"): _ADMINS,
    ("GET", "/v1/sensors/{sensor_id}"): _OVERSEERS,
    ("POST", "/v1/sensors/{sensor_id}/rotate"): _ADMINS,
    ("POST", "/v1/sensors/{sensor_id}/disable"): _ADMINS,
    ("POST", "/v1/sensors/{sensor_id}/enable"): _ADMINS,
    ("GET", "/v1/users"): _OVERSEERS,
    ("POST", "/v1/users"): _ADMINS,
    ("GET", "/v1/users/{username}"): _OVERSEERS,
    ("POST", "/v1/users/{username}/disable"): _ADMINS,
    ("POST", "/v1/users/{username}/enable"): _ADMINS,
    ("POST", "/v1/users/{username}/extend"): _ADMINS,
    ("GET", "/v1/audit/entries"): _AUDITORS,
    ("GET", "/v1/audit/checkpoint"): _OVERSEERS,
    ("GET", "/v1/audit/proof"): _AUDITORS,
    ("GET", "/v1/audit/consistency"): _OVERSEERS,
    ("GET", "/v1/audit/export"): _AUDITORS,
    ("GET", "/v1/audit/archive"): _AUDITORS,
    ("GET", "/v1/audit/statistics"): _OVERSEERS,
    ("GET", "/v1/audit/queries"): _AUDITORS,
    ("POST", "/v1/audit/queries"): _AUDITORS,
    ("DELETE", "/v1/audit/queries/{name}"): _AUDITORS,
    ("GET", "/v1/audit/witnesses"): _OVERSEERS,
    ("GET", "/v1/log/checkpoint"): _OVERSEERS,
    ("GET", "/v1/log/tile/{tile}"): _AUDITORS,
    ("POST", "/v1/witness/add-checkpoint"): PUBLIC,
    ("GET", "/v1/witness/{origin_digest}/checkpoint"): PUBLIC,
    ("GET", "/v1/federation"): _EVERYBODY,
    ("GET", "/v1/federation/roster"): _EVERYBODY,
    ("GET", "/v1/federation/roster/history"): _EVERYBODY,
    ("GET", "/v1/federation/roster/proposals"): _OVERSEERS,
    ("POST", "/v1/federation/roster/proposals"): _ADMINS,
    ("GET", "/v1/federation/roster/proposals/{digest}"): _OVERSEERS,
    ("POST", "/v1/federation/roster/votes"): _ADMINS,
    ("POST", "/v1/federation/roster/forks/{digest}/follow"): _ADMINS,
    ("GET", "/v1/federation/suspensions"): _EVERYBODY,
    ("POST", "/v1/federation/suspensions"): _ADMINS,
    ("DELETE", "/v1/federation/suspensions/{nation}"): _ADMINS,
}

WHOLE_LOG: Final = frozenset(
    {
        ("GET", "/v1/audit/export"),
        ("GET", "/v1/audit/archive"),
        ("GET", "/v1/log/tile/{tile}"),
    }
)
"""What gives out entries byte by byte, so that nothing can be withheld: only for those who are cleared for everything."""


SELF_RECORDED: Final = frozenset(
    {
        ("GET", "/v1/alerts"),
        ("GET", "/v1/alerts/{alert_id}"),
        ("GET", "/v1/alerts/{alert_id}/trail"),
        ("GET", "/v1/alerts/{alert_id}/evidence"),
        ("GET", "/v1/audit/entries"),
        ("GET", "/v1/audit/export"),
        ("GET", "/v1/audit/archive"),
        ("GET", "/v1/audit/statistics"),
    }
)
"""What writes an entry of its own about who looked, with more in it; every other look of an auditor is recorded by ``looks``."""

LOOK: Final = "look"
"""Where a request's state has the ``Look`` that is to be recorded, if any."""


async def admit(request: Request) -> Identity | None:
    """Who asks, None on a public route; ``Unauthenticated`` or ``Forbidden`` where they may not."""
    entry = request.method, request.scope["route"].path_format
    allowed = ACCESS.get(entry)
    if allowed is None:
        raise Forbidden("Nobody may call this.")
    if allowed == PUBLIC:
        return None
    identity = await parts_of(request).tokens.identify(request.headers.get("authorization"))
    if identity.roles.isdisjoint(allowed):
        raise Forbidden(f"This needs one of the roles {', '.join(sorted(allowed))}.")
    if entry in WHOLE_LOG and identity.clearance is not Tlp.RED:
        raise Forbidden(
            f"Entries cannot be given out whole to somebody cleared up to TLP:{identity.clearance.value}; "
            "this needs TLP:RED. GET /v1/audit/entries withholds what you may not see."
        )
    if request.method == "GET" and Role.AUDITOR in identity.roles and entry not in SELF_RECORDED:
        parts = [(name.removesuffix("_id"), value) for name, value in request.path_params.items()]
        look = Look(
            identity.username,
            request.url.path,
            tuple(parts),
            tuple(request.query_params.multi_items()),
        )
        setattr(request.state, LOOK, look)
    return identity


def methods_at(path: str) -> tuple[str, ...]:
    """The methods of the routes at one path template."""
    return tuple(sorted(method for method, each in ACCESS if each == path))
