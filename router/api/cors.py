"""What pages of other origins are told by the browser's rules: the origins of now."""

from __future__ import annotations

from typing import Any

from starlette.middleware.cors import CORSMiddleware

from backends.base import Receive, Scope, Send
from router.configuration import Configuration


class Cors:
    """Starlette's own, made anew when the origins are others. Without any, nobody is told."""

    def __init__(self, app: Any, configuration: Configuration) -> None:
        self.app = app
        self.configuration = configuration
        self._origins: tuple[str, ...] = ()
        self._telling = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origins = self.configuration.settings.allow_origin
        if origins != self._origins:
            self._origins, self._telling = origins, self._for(origins)
        await self._telling(scope, receive, send)

    def _for(self, origins: tuple[str, ...]) -> Any:
        if not origins:
            return self.app
        return CORSMiddleware(
            self.app,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
        )
