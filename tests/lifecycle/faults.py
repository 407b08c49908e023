"""What happens to a daemon's engines and models while clients ask: one fault at a time, at
random."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx
import psutil

from tests.e2e.daemon import Daemon
from tests.lifecycle.site import ENGINES, FAKES, Site, process_of

BEHAVIOURS: tuple[Mapping[str, Any], ...] = (
    {},
    {"deaf": True},
    {"deaf": True, "grandchild": "group"},
    {"flood_bytes": 4 << 20},
    {"words": ["out of luck"], "exit_at_start": 1},
    {"flood_bytes": 1 << 20, "exit_at_start": 3},
    {"start_seconds": 1.5},
    {"ready_seconds": 0.5, "grandchild": "group"},
    {"wrapper": True},
)
"""Of the fake engines at their next starts; well now and then. None forks into a session of its
own: where the guard is killed as well, nobody knows of such a process any more."""

CHANGED, MOVED, ADDED = "parrot-gguf", "parrot-plain", "parrot-new"
STOPPED_SECONDS = 3.0
AWAY_SECONDS = 2.0
PAUSE_SECONDS = 0.8
"""Longest pauses."""


class Faults:
    """`done` counts what was done, by name; `complaints` are answers without a name."""

    def __init__(self, site: Site, daemon: Daemon, api: httpx.AsyncClient, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._site = site
        self._api = api
        self._chance = random.Random(seed)
        self._daemon = process_of(daemon)
        kinds: tuple[Callable[[], Awaitable[bool]], ...] = (
            self._kill_an_engine,
            self._kill_a_guard,
            self._stop_for_a_while,
            self._misbehave,
            self._misbehave,
            self._change,
            self._remove_and_return,
            self._add_and_remove,
            self._load,
            self._unload,
            self._unload,
        )
        self._kinds = kinds

    async def run(self) -> None:
        while True:
            fault = self._chance.choice(self._kinds)
            if await fault():
                self.done[fault.__name__.strip("_").replace("_", " ")] += 1
            await asyncio.sleep(self._chance.uniform(0, PAUSE_SECONDS))

    # Processes

    async def _kill_an_engine(self) -> bool:
        return self._send(self._engines(), signal.SIGKILL) is not None

    async def _kill_a_guard(self) -> bool:
        return self._send(self._guards(), signal.SIGKILL) is not None

    async def _stop_for_a_while(self) -> bool:
        """Of the guard or the engine; it is continued, however this task ends."""
        stopped = self._send(self._guards() + self._engines(), signal.SIGSTOP)
        if stopped is None:
            return False
        try:
            await asyncio.sleep(self._chance.uniform(0, STOPPED_SECONDS))
        finally:
            with contextlib.suppress(psutil.Error):
                stopped.resume()
        return True

    def _send(self, processes: list[psutil.Process], number: signal.Signals) -> Any:
        if not processes:
            return None
        chosen = self._chance.choice(processes)
        try:
            chosen.send_signal(number)
        except psutil.Error:
            return None
        return chosen

    def _guards(self) -> list[psutil.Process]:
        return self._daemon.children()

    def _engines(self) -> list[psutil.Process]:
        return [engine for guard in self._guards() for engine in _children(guard)]

    async def _misbehave(self) -> bool:
        fake = self._site.fake(self._chance.choice(FAKES))
        fake.behave(**self._chance.choice(BEHAVIOURS))
        return True

    # Files

    async def _change(self) -> bool:
        """The same name with another file behind it."""
        (file,) = (self._site.models / CHANGED).glob("*.gguf")
        copy = self._site.aside / file.name
        shutil.copyfile(file, copy)
        copy.replace(file)
        return True

    async def _remove_and_return(self) -> bool:
        here, there = self._site.models / MOVED, self._site.aside / MOVED
        here.rename(there)
        try:
            await asyncio.sleep(self._chance.uniform(0, AWAY_SECONDS))
        finally:
            there.rename(here)
        return True

    async def _add_and_remove(self) -> bool:
        self._site.add(ADDED, "gguf-q8_0")
        try:
            await asyncio.sleep(self._chance.uniform(0, 2 * AWAY_SECONDS))
        finally:
            shutil.rmtree(self._site.models / ADDED)
        return True

    # By hand

    async def _load(self) -> bool:
        return await self._by_hand("load")

    async def _unload(self) -> bool:
        return await self._by_hand("unload")

    async def _by_hand(self, what: str) -> bool:
        model = self._chance.choice((*ENGINES, *FAKES))
        answer = await self._api.post(f"/router/models/{model}/{what}")
        value = answer.json()
        if answer.status_code == 500 or not ("state" in value or value["error"]["code"]):
            self.complaints.append(f"{what} {model}: {answer.status_code}")
        return True


def _children(process: psutil.Process) -> Iterator[psutil.Process]:
    try:
        yield from process.children(recursive=True)
    except psutil.Error:
        return
