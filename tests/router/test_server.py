from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router import runtime, server
from router.errors import SettingsError
from router.registry import Registry
from router.settings import Settings
from router.watch import Sources


def test_without_a_folder_for_sockets_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_base", lambda: tmp_path / "none")
    settings = Settings()
    sources = Sources(lambda: settings, lambda _: Registry([]))
    with (
        server.bind("127.0.0.1", 0) as sock,
        pytest.raises(SettingsError, match=r"^No private folder for sockets can be made: No such"),
    ):
        server.run(settings, Registry([]), {}, sock, sources)


def test_what_comes_too_late_for_a_cancelled_read_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise ValueError("unforeseen")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(server.tell_unforeseen)
        future: asyncio.Future[None] = loop.create_future()
        loop.call_soon(future.set_result, None)
        future.cancel()
        loop.call_soon(fail)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=server._loop_factory()) as runner:
        runner.run(main())
    assert "unforeseen" in caplog.text
    assert "InvalidStateError" not in caplog.text
