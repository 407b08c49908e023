from __future__ import annotations

import re
from typing import Any, cast

import pytest
from starlette.routing import Route

from router.api import schemas
from router.api.openapi import OPERATIONS, REASONS, document
from router.app import create_app
from router.catalog import Catalog
from router.configuration import Configuration
from router.errors import RouterError
from router.pool import Pool
from router.registry import Registry
from router.settings import Settings


class Unused:
    """A pool that nobody asks for anything while the paths are put together."""

    def __getattr__(self, name: str) -> Any:
        return self


def test_every_endpoint_is_described_and_nothing_else() -> None:
    app = create_app(
        Configuration(Settings()), Catalog(Registry(())), cast(Pool, Unused())
    )  # fmt: skip
    served = {
        (method.lower(), re.sub(r":path\}", "}", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or ())
        if method != "HEAD"
    }
    described = {(method, path) for path, all_ in document()["paths"].items() for method in all_}
    assert described == served
    assert len(OPERATIONS) == len(described)


def test_every_schema_is_used() -> None:
    text = repr(document())
    for name in (*schemas.REQUESTS, *schemas.ANSWERS, *schemas.ERRORS):
        assert f"#/components/schemas/{name}'" in text, name


def _all(error: type[RouterError]) -> set[int]:
    return {error.status}.union(*map(_all, error.__subclasses__()))


@pytest.mark.parametrize("status", sorted(_all(RouterError)))
def test_every_status_of_an_error_has_its_reason(status: int) -> None:
    assert status in REASONS or status == 405
