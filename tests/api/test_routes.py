"""What every route under /v1 must have, also one that is added later."""

import pytest
from fastapi.routing import APIRoute

from api.app import V1_ROUTERS
from api.auth.caller import requires
from api.json_body import JsonRoute

ROUTES = [route for router in V1_ROUTERS for route in router.routes if isinstance(route, APIRoute)]
NAMES = [f"{min(route.methods)} {route.path}" for route in ROUTES]

SCOPE_CHECK = requires("files").dependency.__qualname__  # type: ignore[union-attr]


def test_there_are_routes() -> None:
    assert len(ROUTES) > 20


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_a_route_checks_scopes_once(route: APIRoute) -> None:
    checks = [getattr(each.dependency, "__qualname__", "") for each in route.dependencies]
    assert checks.count(SCOPE_CHECK) == 1, "its router needs dependencies=[requires(…)]"


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_the_cost_of_a_json_body_is_bounded(route: APIRoute) -> None:
    assert route.body_field is None or isinstance(route, JsonRoute), (
        "its router needs route_class=JsonRoute"
    )
