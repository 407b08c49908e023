from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.base import ENDLESS, InstanceOptions, InstanceState, Patience
from backends.errors import (
    EngineBusyError,
    EngineDiedError,
    EngineError,
    EngineMemoryError,
    EngineMissingError,
    EngineRefusedError,
    EngineStartError,
)
from backends.proxy import TcpEndpoint
from backends.served import ServedByChild
from tests.fake_engine import FakeEngine, asking
from tests.processes import alive, linux, none_alive, open_descriptors
from tests.serving import client, serving
from tests.slack import run, within
from tests.waiting import until

CHAT = "/v1/chat/completions"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: the name of a socket may have a hundred letters."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def engine(folder: Path) -> FakeEngine:
    return FakeEngine(folder / "engine")


def instance(
    engine: FakeEngine,
    *,
    start_timeout_seconds: float = 600,
    patience: Patience = ENDLESS,
    **service: Any,
) -> ServedByChild:
    runtime_dir = engine.folder / "run"
    runtime_dir.mkdir(exist_ok=True)
    options = InstanceOptions(
        runtime_dir=runtime_dir,
        start_timeout_seconds=start_timeout_seconds,
        patience=patience,
    )
    return ServedByChild("a", replace(engine.service(), **service), options)


def life(served: ServedByChild, scenario: Callable[[ServedByChild], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await scenario(served)
        finally:
            await served.stop(0)

    run(main())


def state(served: ServedByChild) -> InstanceState:
    return served.status().state


def sockets(engine: FakeEngine) -> list[Path]:
    return list((engine.folder / "run").iterdir())


async def failing(served: ServedByChild) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await served.ensure_ready()
    assert state(served) is InstanceState.FAILED
    assert served.status().reason == caught.value.message
    return caught.value


# Ready


@pytest.mark.parametrize("unix", [True, False])
def test_it_is_ready_once_it_has_generated_a_token(engine: FakeEngine, unix: bool) -> None:
    async def scenario(served: ServedByChild) -> None:
        assert (state(served), served.status().pid) == (InstanceState.STOPPED, None)
        await served.ensure_ready()
        assert len(engine.records("canary")) == 1
        status = served.status()
        assert (status.model, status.engine, status.state) == ("a", "fake", InstanceState.READY)
        assert status.pid is not None
        assert alive(status.pid)
        used = served.used_bytes()
        assert used is not None
        assert used > 1_000_000
        assert status.load_seconds is not None
        assert status.load_seconds > 0

    life(instance(engine, unix=unix), scenario)


def test_it_answers_as_the_engine_does(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        async with serving(served) as port, client(port) as asker:
            answer = await asker.post(CHAT, json=asking(chunks=["{}"]))
            assert (answer.status_code, answer.content) == (200, b"{}")

    life(instance(engine), scenario)


def test_a_green_health_check_is_not_enough(engine: FakeEngine) -> None:
    engine.behave(canary_hangs=True)

    async def scenario(served: ServedByChild) -> None:
        starting = asyncio.create_task(served.ensure_ready())
        await until(lambda: engine.records("canary"))
        await asyncio.sleep(0.1)
        assert (state(served), starting.done()) == (InstanceState.STARTING, False)
        await served.stop(0)
        with pytest.raises(EngineBusyError):
            await starting

    life(instance(engine), scenario)


def test_a_slow_start_is_waited_for(engine: FakeEngine) -> None:
    engine.behave(start_seconds=0.3, ready_seconds=0.3)

    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        assert (served.status().load_seconds or 0) > 0.5

    life(instance(engine), scenario)


def test_callers_share_one_start(engine: FakeEngine) -> None:
    engine.behave(ready_seconds=0.2)

    async def scenario(served: ServedByChild) -> None:
        await asyncio.gather(*(served.ensure_ready() for _ in range(100)))
        await served.ensure_ready()
        assert len(engine.records("listening")) == len(engine.records("canary")) == 1

    life(instance(engine), scenario)


def test_a_caller_that_gives_up_does_not_end_the_start_of_others(engine: FakeEngine) -> None:
    engine.behave(ready_seconds=0.2)

    async def scenario(served: ServedByChild) -> None:
        first, second = (asyncio.create_task(served.ensure_ready()) for _ in range(2))
        await until(lambda: engine.records("listening"))
        first.cancel()
        await second
        assert first.cancelled()
        assert state(served) is InstanceState.READY
        assert len(engine.records("listening")) == 1

    life(instance(engine), scenario)


def test_all_callers_of_a_start_that_fails_get_its_error(engine: FakeEngine) -> None:
    engine.behave(start_seconds=0.1, exit_at_start=3)

    async def scenario(served: ServedByChild) -> None:
        calls = (served.ensure_ready() for _ in range(5))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [EngineRefusedError] * 5

    life(instance(engine), scenario)


def test_the_server_behind_a_wrapper_is_used_and_stopped(engine: FakeEngine) -> None:
    engine.behave(wrapper=True)

    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        await served.stop(600)
        assert none_alive(engine.pids())

    life(instance(engine), scenario)


# Starts that fail


@pytest.mark.parametrize(
    ("behaviour", "what"),
    [
        ({"exit_at_start": 3}, "fake ended while it loaded the model."),
        ({"exit_at_start": 0}, "fake ended while it loaded the model."),
        ({"exit_at_canary": 3}, "fake ended at its first token."),
        (
            {"canary_status": 500},
            "fake loaded the model and could not generate a token (status 500).",
        ),
        ({"never_ready": True}, "fake was not ready after 1 s."),
        ({"canary_hangs": True}, "fake was not ready after 1 s."),
        ({"start_seconds": 600}, "fake was not ready after 1 s."),
    ],
)
def test_a_start_that_fails_says_why_with_the_last_words(
    engine: FakeEngine, behaviour: dict[str, Any], what: str
) -> None:
    engine.behave(words=["loading", "no such tensor"], **behaviour)
    late = what.endswith("1 s.")

    async def scenario(served: ServedByChild) -> None:
        error = await failing(served)
        assert type(error) is (EngineStartError if late else EngineRefusedError)
        assert (error.message, error.engine, error.model) == (what, "fake", "a")
        assert error.last_words == ("loading", "no such tensor")
        assert served.status().last_words == error.last_words
        assert served.status().pid is None
        assert none_alive(engine.pids())
        assert sockets(engine) == []

    # An interpreter starts in less than a second, but not on a busy machine.
    timeout = 1 if late else 600
    life(instance(engine, start_timeout_seconds=timeout), scenario)


def test_words_printed_with_the_last_breath_are_kept(folder: Path) -> None:
    dying = FakeEngine(folder / "dying", exit_at_canary=1)
    script = '"$@" & wait $!; sleep 0.2; echo "CUDA error: out of memory"; exit 1'

    def command(endpoint: Any) -> list[str]:
        return ["sh", "-c", script, "sh", *dying.command_at(endpoint)]

    async def scenario(served: ServedByChild) -> None:
        error = await failing(served)
        assert error.last_words == ("CUDA error: out of memory",)
        assert type(error) is EngineMemoryError
        assert error.message == "fake ended at its first token: memory ran out."

    life(instance(dying, command=command), scenario)


def test_a_program_that_is_missing_says_so(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        error = await failing(served)
        assert type(error) is EngineMissingError
        assert error.last_words == ("cannot run /does/not/exist: No such file or directory",)

    life(instance(engine, command=lambda _: ["/does/not/exist"]), scenario)


def test_a_working_folder_that_is_missing_is_an_engine_that_is_missing(
    engine: FakeEngine,
) -> None:
    async def scenario(served: ServedByChild) -> None:
        error = await failing(served)
        assert type(error) is EngineMissingError
        assert error.message == "fake could not be started: No such file or directory."

    life(instance(engine, folder=engine.folder / "missing"), scenario)


def test_after_a_start_that_failed_it_can_be_started_again(engine: FakeEngine) -> None:
    engine.behave(exit_at_start=3)

    async def scenario(served: ServedByChild) -> None:
        await failing(served)
        engine.behave()
        await served.ensure_ready()
        assert (state(served), served.status().reason) == (InstanceState.READY, "")

    life(instance(engine), scenario)


# Ports of others


class Stranger:
    """Another program that has taken our ports; `served` shows what it was told."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heard = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                self.heard += data
        writer.close()

    @contextlib.asynccontextmanager
    async def at(self, port: int = 0) -> AsyncIterator[int]:
        server = await asyncio.start_server(self, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


STRANGERS = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"SSH-2.0-OpenSSH_9.9\r\n", b""]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("answer", STRANGERS)
def test_a_port_of_another_program_is_left_for_a_port_of_its_own(
    engine: FakeEngine, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Stranger(answer)

    async def scenario(served: ServedByChild) -> None:
        async with stranger.at() as taken:
            ports = [taken, taken, free_port()]
            monkeypatch.setattr(served, "_endpoint", lambda: TcpEndpoint(ports.pop(0)))
            await asyncio.wait_for(served.ensure_ready(), within(10))
            assert not ports
            assert stranger.heard == b""
            assert len(engine.records("canary")) == 1

    life(instance(engine, unix=False), scenario)


@pytest.mark.parametrize("answer", STRANGERS)
def test_a_start_that_gets_no_port_of_its_own_fails(
    engine: FakeEngine, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Stranger(answer)

    async def scenario(served: ServedByChild) -> None:
        async with stranger.at() as taken:
            monkeypatch.setattr(served, "_endpoint", lambda: TcpEndpoint(taken))
            error = await asyncio.wait_for(failing(served), within(10))
            assert error.message == "fake did not get a port of its own."
            assert stranger.heard == b""

    life(instance(engine, unix=False), scenario)


# Failing while ready


def test_an_engine_that_is_killed_fails_the_instance(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        waiting = asyncio.create_task(served.wait_failed())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        os.kill(engine.pids()[0], signal.SIGKILL)
        await asyncio.wait_for(waiting, within(2))
        status = served.status()
        assert (status.state, status.pid) == (InstanceState.FAILED, None)
        assert status.reason == "it ended with status 137"

    life(instance(engine), scenario)


@linux
def test_a_guard_that_is_killed_fails_the_instance(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        guard = served.status().pid
        assert guard is not None
        os.kill(guard, signal.SIGKILL)
        await asyncio.wait_for(served.wait_failed(), within(2))
        await until(lambda: none_alive(engine.pids()))

    life(instance(engine), scenario)


def test_a_failed_instance_refuses_requests(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        os.kill(engine.pids()[0], signal.SIGKILL)
        await served.wait_failed()
        with pytest.raises(EngineDiedError):
            await served({}, refuse, refuse)

    life(instance(engine), scenario)


async def refuse(*_: Any) -> Any:
    raise AssertionError("an instance that is not ready reads and answers nothing")


def test_a_failed_instance_can_be_started_again(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        for _ in range(3):
            await served.ensure_ready()
            assert len(sockets(engine)) == 1
            os.kill(engine.pids()[-1], signal.SIGKILL)
            await asyncio.wait_for(served.wait_failed(), within(2))
        await served.ensure_ready()
        assert state(served) is InstanceState.READY
        waiting = asyncio.create_task(served.wait_failed())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()

    life(instance(engine), scenario)


def test_the_last_words_of_a_dead_engine_are_kept_after_the_stop(engine: FakeEngine) -> None:
    engine.behave(words=["hello"])

    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        os.kill(engine.pids()[0], signal.SIGKILL)
        await served.wait_failed()
        await served.stop(0)
        assert served.status().last_words == ("hello",)

    life(instance(engine), scenario)


# Stopping


def test_stopping_ends_the_process_and_removes_the_socket(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        await served.stop(600)
        assert (state(served), served.status().pid) == (InstanceState.STOPPED, None)
        assert none_alive(engine.pids())
        assert sockets(engine) == []
        await served.stop(600)
        assert state(served) is InstanceState.STOPPED

    life(instance(engine), scenario)


def test_stopping_is_no_failure(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        waiting = asyncio.create_task(served.wait_failed())
        await served.stop(600)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()

    life(instance(engine), scenario)


def test_a_deaf_engine_is_stopped_after_the_grace_or_by_a_less_patient_stop(
    engine: FakeEngine,
) -> None:
    engine.behave(deaf=True, grandchild="session")

    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        patient = asyncio.create_task(served.stop(600))
        await asyncio.sleep(0.05)
        assert state(served) is InstanceState.STOPPING
        await served.stop(0.1)
        await patient
        assert state(served) is InstanceState.STOPPED
        assert len(engine.pids()) == 2
        assert none_alive(engine.pids())

    life(instance(engine), scenario)


@pytest.mark.parametrize(
    ("behaviour", "moment"),
    [
        ({}, "spawned"),
        ({"start_seconds": 600, "grandchild": "group"}, "grandchild"),
        ({"never_ready": True}, "listening"),
        ({"canary_hangs": True}, "canary"),
    ],
)
def test_a_stop_while_it_starts_leaves_nothing(
    engine: FakeEngine, behaviour: dict[str, Any], moment: str
) -> None:
    engine.behave(**behaviour)

    async def scenario(served: ServedByChild) -> None:
        starting = asyncio.create_task(served.ensure_ready())
        await until(lambda: engine.records(moment) or (moment == "spawned" and served.status().pid))
        await asyncio.gather(served.stop(600), served.stop(0))
        assert (state(served), served.status().pid) == (InstanceState.STOPPED, None)
        assert none_alive(engine.pids())
        assert sockets(engine) == []
        with pytest.raises(EngineBusyError):
            await starting

    life(instance(engine), scenario)


def test_a_start_while_it_stops_is_refused_and_works_later(engine: FakeEngine) -> None:
    engine.behave(deaf=True)

    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        stopping = asyncio.create_task(served.stop(0.3))
        await until(lambda: state(served) is InstanceState.STOPPING)
        with pytest.raises(EngineBusyError):
            await served.ensure_ready()
        with pytest.raises(EngineDiedError):
            await served({}, refuse, refuse)
        await stopping
        await served.ensure_ready()
        assert state(served) is InstanceState.READY

    life(instance(engine), scenario)


def test_many_lives_leave_nothing_behind(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        await served.stop(600)
        before = open_descriptors()
        for _ in range(5):
            await served.ensure_ready()
            await served.stop(600)
        await asyncio.sleep(0)
        assert open_descriptors() == before
        assert none_alive(engine.pids())
        assert sockets(engine) == []

    life(instance(engine), scenario)


def test_its_snapshot_is_readable(engine: FakeEngine) -> None:
    assert repr(instance(engine)) == "<fake a <stopped>>"


def test_an_engine_that_has_deadlocked_is_ended_and_its_requests_fail(engine: FakeEngine) -> None:
    async def scenario(served: ServedByChild) -> None:
        await served.ensure_ready()
        async with serving(served) as port, client(port) as http:
            answer = await http.post(CHAT, json=asking(silent=True))
            assert answer.status_code == 500
        await asyncio.wait_for(served.wait_failed(), within(5))
        assert served.status().state is InstanceState.FAILED
        assert "it did nothing for" in served.status().reason
        await until(lambda: none_alive(engine.pids()))

    life(instance(engine, patience=Patience(stall_seconds=0.5)), scenario)
