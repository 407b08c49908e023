from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from backends.base import Instance, InstanceOptions, InstanceState, Isolation, Message, Patience
from backends.errors import EngineBusyError, EngineSilentError, EngineStartError
from backends.mlx.backend import MLXBackend
from backends.mlx.thread import once
from backends.wire.request import COUNT_PATH
from detect.scan import inspect_path
from tests.backends.messages import Exchange, scope
from tests.conftest import Variant
from tests.slack import run
from tests.tiny import dialogues as d
from tests.waiting import until

Scenario = Callable[[Instance], Awaitable[None]]

both = pytest.mark.parametrize("isolation", list(Isolation))


def with_instance(
    folder: Path,
    scenario: Scenario,
    *,
    start_timeout_seconds: float = 600,
    isolation: Isolation = Isolation.DAEMON,
    **options: Any,
) -> None:
    async def main(runtime_dir: Path) -> None:
        backend = MLXBackend()
        chosen = InstanceOptions(
            start_timeout_seconds=start_timeout_seconds,
            isolation=isolation,
            runtime_dir=runtime_dir,
            **options,
        )
        instance = backend.create("tiny", inspect_path(folder), chosen)
        try:
            await scenario(instance)
        finally:
            await instance.stop(0)

    with tempfile.TemporaryDirectory() as runtime_dir:
        run(main(Path(runtime_dir)))


@both
def test_one_load_serves_all_who_wait_for_it(variant: Variant, isolation: Isolation) -> None:
    async def scenario(instance: Instance) -> None:
        assert instance.status().state is InstanceState.STOPPED
        await asyncio.gather(*(instance.ensure_ready() for _ in range(5)))
        status = instance.status()
        assert status.state is InstanceState.READY
        assert status.engine == "mlx"
        assert status.load_seconds
        assert instance.used_bytes()

    with_instance(variant("mlx-bf16"), scenario, isolation=isolation)


@both
def test_one_who_gives_up_does_not_end_the_load_for_the_others(
    variant: Variant, isolation: Isolation
) -> None:
    async def scenario(instance: Instance) -> None:
        leaving = asyncio.create_task(instance.ensure_ready())
        staying = asyncio.create_task(instance.ensure_ready())
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
        assert instance.status().state is InstanceState.READY

    with_instance(variant("mlx-bf16"), scenario, isolation=isolation)


@both
def test_a_stopped_one_holds_nothing_and_can_be_started_again(
    variant: Variant, isolation: Isolation
) -> None:
    async def scenario(instance: Instance) -> None:
        for _ in range(2):
            await instance.ensure_ready()
            await asyncio.gather(instance.stop(1), instance.stop(1))
            assert instance.status().state is InstanceState.STOPPED
            assert not instance.used_bytes()

    with_instance(variant("mlx-bf16"), scenario, isolation=isolation)


def test_a_stop_ends_a_load_under_way(variant: Variant) -> None:
    async def scenario(instance: Instance) -> None:
        loading = asyncio.create_task(instance.ensure_ready())
        await asyncio.sleep(0)
        await instance.stop(1)
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert instance.status().state is InstanceState.STOPPED

    with_instance(variant("mlx-bf16"), scenario)


def test_who_asks_one_that_is_not_ready_is_told_to_ask_again(variant: Variant) -> None:
    async def scenario(instance: Instance) -> None:
        with pytest.raises(EngineBusyError, match="ask again"):
            await instance({"path": "/v1/completions"}, None, None)  # type: ignore[arg-type]

    with_instance(variant("mlx-bf16"), scenario)


def test_a_model_that_cannot_be_loaded_fails_in_our_words(variant: Variant, tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(variant("safetensors"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))

    async def scenario(instance: Instance) -> None:
        with pytest.raises(EngineStartError) as failure:
            await instance.ensure_ready()
        assert failure.value.message == "mlx could not load the model."
        assert "not in model" in failure.value.last_words[0]
        assert instance.status().state is InstanceState.FAILED

    with_instance(folder, scenario)


@both
def test_a_load_that_takes_too_long_is_given_up(variant: Variant, isolation: Isolation) -> None:
    async def scenario(instance: Instance) -> None:
        with pytest.raises(EngineStartError, match="not ready after"):
            await instance.ensure_ready()

    with_instance(variant("mlx-bf16"), scenario, isolation=isolation, start_timeout_seconds=0.0)


async def ask(instance: Instance) -> None:
    """For a token; the client stays."""
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1}).encode()
    messages: asyncio.Queue[Message] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": body})

    async def send(message: Message) -> None:
        pass

    await instance({"path": "/v1/completions"}, messages.get, send)


def test_a_thread_that_is_stuck_fails_its_requests_and_says_what_to_do(variant: Variant) -> None:
    """Nothing can end it within the daemon; when it comes back by itself, all works again."""
    folder, held = variant("mlx-bf16"), threading.Event()
    options = InstanceOptions(patience=Patience(stall_seconds=1.0))

    async def main() -> None:
        backend = MLXBackend()
        instance = backend.create("tiny", inspect_path(folder), options)
        await instance.ensure_ready()
        backend.create("other", inspect_path(folder), options)
        stuck = asyncio.create_task(backend.thread.call(held.wait))
        with pytest.raises(EngineSilentError, match="computes nothing"):
            await ask(instance)
        await instance.wait_failed()
        assert "Nothing within the router" in instance.status().reason
        with pytest.raises(EngineSilentError):
            await stuck
        await instance.stop(0)
        assert instance.used_bytes()
        with pytest.raises(EngineSilentError):
            await instance.ensure_ready()
        held.set()
        backend.thread.submit(once(lambda: None)).result(5)
        assert instance.used_bytes() is None
        await instance.ensure_ready()
        assert instance.status().state is InstanceState.READY
        await instance.stop(0)

    run(main())


@both
def test_what_is_set_for_a_model_reaches_its_engine(
    variant: Variant, isolation: Isolation, tmp_path: Path
) -> None:
    """Seen from outside: a prompt that is asked again is known, and known to the disk."""
    asked = {"model": "tiny", "messages": [d.user(d.QUESTION)], "temperature": 0}

    async def scenario(instance: Instance) -> None:
        await instance.ensure_ready()
        cached = []
        for _ in range(2):
            exchange = Exchange(json.dumps(asked).encode())
            await instance(scope("POST", "/v1/chat/completions"), exchange.receive, exchange.send)
            usage = json.loads(exchange.body)["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        assert cached[0] == 0 < cached[1]
        await until(lambda: list(tmp_path.glob("prompts/*/*.tokens")))

    with_instance(
        variant("mlx-bf16"),
        scenario,
        isolation=isolation,
        prefix_disk_bytes=2**30,
        cache_dir=tmp_path,
    )


@both
def test_it_tells_how_long_a_prompt_is_and_generates_nothing(
    variant: Variant, isolation: Isolation
) -> None:
    asked = {"messages": [{"role": "user", "content": d.QUESTION}]}

    async def scenario(instance: Instance) -> None:
        await instance.ensure_ready()
        exchange = Exchange(json.dumps(asked).encode())
        await instance(scope("POST", COUNT_PATH), exchange.receive, exchange.send)
        assert exchange.status == 200
        assert json.loads(exchange.body)["input_tokens"] == 21

    with_instance(variant("mlx-bf16"), scenario, isolation=isolation)
