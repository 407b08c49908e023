"""A daemon with models on every engine, real and fake, and little room for them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.daemon import Daemon, serving
from tests.fake_engine import FakeEngine
from tests.lifecycle.binary import llama_server
from tests.lifecycle.traces import Mark
from tests.tiny.variants import build

REAL: Mapping[str, str] = {
    "parrot-mlx": "mlx-4bit",
    "parrot-gguf": "gguf-q8_0",
    "parrot-plain": "safetensors",
}
"""Models, and the variants that they are; one for each engine."""

ENGINES: Mapping[str, str] = {
    "parrot-mlx": "mlx",
    "parrot-gguf": "llama.cpp",
    "parrot-plain": "mistral.rs",
}
PLAIN_BY_MISTRAL_RS = ("--engine", "parrot-plain=mistral.rs")
FAKES = ("fake-a", "fake-b")
ROOM_FOR_TWO = "1300M"
"""Two of different engines fit, never three, and never two of llama.cpp."""

ROOM_FOR_ONE = "800M"


@dataclass(frozen=True, slots=True)
class Site:
    folder: Path
    mark: Mark = field(default_factory=Mark)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def aside(self) -> Path:
        """Beside the models, on the same disk: what lies here is not served."""
        return self.folder / "aside"

    @property
    def fakes(self) -> Path:
        return self.folder / "fakes"

    def fake(self, model: str) -> FakeEngine:
        return FakeEngine(self.fakes / model)

    def add(self, model: str, variant: str) -> None:
        """All at once, as a download does that is renamed when it is complete."""
        build(variant, self.aside / variant)
        shutil.copytree(self.aside / variant, self.aside / model)
        (self.aside / model).rename(self.models / model)

    @contextlib.contextmanager
    def serving(self, memory: str, *flags: str) -> Iterator[Daemon]:
        program = llama_server(self.folder, self.fakes)
        all_flags = ("--memory", memory, "--llama-server", str(program), *flags)
        with serving(self.models, flags=all_flags, environment=self.mark.environment) as daemon:
            yield daemon


@contextlib.contextmanager
def built(models: Mapping[str, str], fakes: tuple[str, ...] = ()) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="router-proof-") as place:
        site = Site(Path(place))
        site.models.mkdir()
        for model, variant in models.items():
            site.add(model, variant)
        for fake in fakes:
            site.add(fake, "gguf-q4_0")
            site.fake(fake)
        yield site


def process_of(daemon: Daemon) -> psutil.Process:
    return psutil.Process(daemon.process.pid)


def emptied(daemon: Daemon, seconds: float) -> bool:
    """Whether nothing is loaded, waits, or is left of an engine within `seconds`."""
    process, deadline = process_of(daemon), time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = daemon.status()
        if not (status["instances"] or status["waiting"] or process.children()):
            return True
        time.sleep(0.01)
    return False


def emptied_by_hand(daemon: Daemon, seconds: float) -> bool:
    """Whether everything is idle soon, and gone once it was unloaded."""
    deadline = time.monotonic() + seconds
    with daemon.client() as api:
        while time.monotonic() < deadline:
            for instance in daemon.status()["instances"]:
                api.post(f"/router/models/{instance['model']}/unload")
            if emptied(daemon, 0.5):
                return True
    return False
