"""All models as a text for terminals: what can be served, what cannot and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from router import explain
from router.entry import ModelEntry
from router.registry import Registry
from router.table import printable, table, wrap

HEAD = ("MODEL", "FORMAT", "QUANTISATION", "SIZE", "ENGINE")


def overview(registry: Registry, folders: Sequence[Path], width: int) -> str:
    parts = [*_served(registry), *_refused(registry, width), *_skipped(registry, width)]
    if not parts:
        looked = ", ".join(printable(str(folder)) for folder in folders)
        return f"No models were found in {looked}."
    return "\n\n".join(parts)


def _served(registry: Registry) -> Iterator[str]:
    if rows := [_row(entry) for entry in registry.servable]:
        notes = [note for entry in registry.servable if (note := _note(entry))]
        yield "\n".join([table(HEAD, rows), *map(printable, notes)])


def _row(entry: ModelEntry) -> tuple[str, ...]:
    info = entry.info
    return (
        entry.id,
        info.format.value,
        explain.quantization(info),
        explain.size(info.weights_bytes),
        entry.choice.engine or "",
    )


def _note(entry: ModelEntry) -> str:
    """A wish that could not be followed."""
    wanted = entry.choice.refused
    if wanted is None:
        return ""
    reasons = [verdict.reason for verdict in entry.verdicts if verdict.engine == wanted]
    why = f" ({reasons[0]})" if reasons else ""
    return f"{entry.id}: you chose {wanted}, which cannot run it{why}."


def _refused(registry: Registry, width: int) -> Iterator[str]:
    refused = [entry for entry in registry if not entry.servable]
    if refused:
        yield _listed("Cannot be run:", [(e.id, _why_not(e)) for e in refused], width)


def _why_not(entry: ModelEntry) -> str:
    if (problem := entry.info.fatal_problem) is not None:
        return problem.message
    return "; ".join(f"{v.engine}: {v.reason}" for v in entry.verdicts) + "."


def _skipped(registry: Registry, width: int) -> Iterator[str]:
    if registry.skipped:
        yield _listed("Skipped:", [(str(s.path), s.reason) for s in registry.skipped], width)


def _listed(title: str, items: Sequence[tuple[str, str]], width: int) -> str:
    lines = [title]
    for name, reason in items:
        first, *rest = wrap(printable(f"{name}: {reason}"), width - 4)
        lines += [f"  {first}", *(f"    {line}" for line in rest)]
    return "\n".join(lines)
