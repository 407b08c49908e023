"""The body of a completion as its engine gets it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from backends.asgi import parsed
from router.api.body import Asked
from router.api.members import edited
from router.entry import ModelEntry
from router.keep_alive import FIELDS as KEEP_ALIVE_FIELDS

SAME_AS: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "n_predict"),
    "repeat_penalty": ("repetition_penalty",),
}
"""Other names that clients have for the same."""


async def for_engine(
    body: bytes, request: Asked, entry: ModelEntry, *, defaults: bool = True
) -> bytes:
    """As the client wrote it, but for what only the router understands, and what the user wants
    to have where the client says nothing: without `defaults`, nothing is."""
    ours = request.fields.intersection(KEEP_ALIVE_FIELDS)
    missing = {
        name: value
        for name, value in entry.settings.sampling.items()
        if defaults and not request.fields & {name, *SAME_AS.get(name, ())}
    }
    if not ours and not missing:
        return body
    return await parsed(body, partial(edited, without=ours, extra=missing))
