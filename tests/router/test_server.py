from __future__ import annotations

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
