"""Every model on every engine, verdict against truth: `python -m tests.truth.matrix [WORD…]`.

With words, only the models whose names contain one. Ends with status 1 when an engine did what
its verdict had not said, unless `DEFECTS` knows why.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.truth.checkpoint import aged
from tests.truth.models import MODELS, Model
from tests.truth.run import ENGINES, Bench, Cell, backends

WIDTH = 40
MARKS = {True: "works", False: "fails"}


@dataclass(frozen=True, slots=True)
class Defect:
    """A cell in which an engine, in one version, does what no rule can tell from headers."""

    version: str
    reason: str


DEFECTS: Mapping[tuple[str, str], Defect] = {}
"""By model and engine."""


@dataclass(frozen=True, slots=True)
class Row:
    model: str
    cells: Mapping[str, Cell]
    alike: bool = False

    def differ(self) -> bool:
        """Engines that run the same numbers and answer otherwise: one of them is wrong."""
        return self.alike and len({c.words for c in self.cells.values() if c.works}) > 1

    def surprises(self) -> Iterator[str]:
        for engine, cell in self.cells.items():
            if not cell.agrees and not _known(self.model, engine):
                yield engine


def main(words: Sequence[str]) -> int:
    chosen = {n: m for n, m in MODELS.items() if not words or any(w in n for w in words)}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="truth-") as folder, Bench() as bench:
        print(f"{'':{WIDTH}}" + "".join(f"{engine:{WIDTH}}" for engine in ENGINES))
        rows = [_row(bench, name, model, Path(folder, name)) for name, model in chosen.items()]
    return _conclude(rows, time.monotonic() - began)


def _row(bench: Bench, name: str, model: Model, folder: Path) -> Row:
    path = aged(model.make(folder))
    cells = {engine: bench.cell(path, engine, recites=model.recites) for engine in ENGINES}
    row = Row(name, cells, model.alike)
    print(
        f"{name:{WIDTH}}"
        + "".join(_text(row, engine) for engine in ENGINES)
        + ("answers differ" if row.differ() else ""),
        flush=True,
    )
    return row


def _text(row: Row, engine: str) -> str:
    cell = row.cells[engine]
    said = cell.verdict.support.value
    if not cell.verdict.ok:
        said = cell.verdict.code
    mark = "" if cell.agrees else ("  (known)" if _known(row.model, engine) else "  <<<<<")
    return f"{f'{said}, {MARKS[cell.works]}{mark}':{WIDTH}}"


def _known(model: str, engine: str) -> bool:
    defect = DEFECTS.get((model, engine))
    return defect is not None and defect.version == backends()[engine].installation().version


def _conclude(rows: Sequence[Row], seconds: float) -> int:
    cells = [cell for row in rows for cell in row.cells.values()]
    surprises = [(row, engine) for row in rows for engine in row.surprises()]
    for row, engine in surprises:
        cell = row.cells[engine]
        said = cell.verdict.reason or cell.verdict.support.value
        print(f"\n{row.model} on {engine}: {said}\n  but it {MARKS[cell.works]}: {cell.words}")
    different = [row for row in rows if row.differ()]
    for row in different:
        answers = {e: cell.words for e, cell in row.cells.items() if cell.works}
        print(f"\n{row.model}: the engines answer differently: {answers}")
    agreed = sum(cell.agrees for cell in cells)
    known = len(cells) - agreed - len(surprises)
    percent = 100 * agreed / max(len(cells), 1)
    print(
        f"\n{len(rows)} models, {len(cells)} cells, {agreed} agree ({percent:.1f} %), "
        f"{known} known defects, {len(surprises)} disagree; {seconds:.0f} s"
    )
    return 1 if surprises or different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
