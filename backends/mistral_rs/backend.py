"""mistral.rs: the user's `mistralrs` (or `mistralrs-server`), else the `mistralrs` wheel."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from backends.base import Footprint, Installation, InstanceOptions, Verdict
from backends.headers import context_length
from backends.installed import Binary, Wheel, find_binary, installation
from backends.mistral_rs.commands import OLD_BINARY, BinaryCommand, Weights, worker_command
from backends.mistral_rs.stub import refusal, write_stub
from backends.mistral_rs.verdict import Knowledge, question, rules
from backends.mistral_rs.view import link_beside, link_files, link_folder
from backends.probe import ArchitectureProbe, ask_worker, build_of, run
from backends.proxy import Endpoint, TcpEndpoint, UnixEndpoint
from backends.served import ServedByChild, Service
from backends.verdicts import Rule, if_installed, judge
from backends.wire.features import honoured
from detect.types import ModelInfo, SafetensorsDetails, WeightFormat

ENGINE = "mistral.rs"
OVERHEAD_BYTES = 300 * 2**20
"""Interpreter, engine and buffers, measured with the tiny models; binaries need less."""

CANARY: Mapping[str, Any] = {"prompt": "a", "max_tokens": 1, "temperature": 0}
PROBE_SECONDS = 20.0
CAPABILITIES = ("safetensors, GGUF, dense MLX and UQFF models",)
WHEEL = Wheel(distribution="mistralrs", module="mistralrs")
INSTALL = (
    "Install mistral.rs so that `mistralrs` is on PATH, "
    'or run `pip install "local-model-router[mistral-rs]"`.'
)


def device(how: str) -> str:
    """`metal`, `cuda` or `cpu`: what the engine computes on here. Linux wheels are for CPUs."""
    if sys.platform == "darwin":
        return "metal"
    cuda = how == "binary" and Path("/proc/driver/nvidia/version").exists()
    return "cuda" if cuda else "cpu"


class MistralRsBackend:
    """Plain and quantised safetensors, dense MLX models, UQFF, and some GGUF architectures."""

    name = ENGINE

    def __init__(self, *, binary: Path | None, cache_dir: Path) -> None:
        self._configured = binary
        self._cache_dir = cache_dir

    def installation(self) -> Installation:
        return self._installation

    def honoured(self) -> frozenset[str] | None:
        """Of the wheel: a binary has a server of its own."""
        return honoured(ENGINE) if self._binary is None else None

    def prepare(self, infos: Sequence[ModelInfo]) -> None:
        """The rules themselves ask, and one process answers for all of them."""
        with self._probe.together():
            for info in infos:
                self.verdict(info)

    def verdict(self, info: ModelInfo) -> Verdict:
        return if_installed(self._installation, judge(self.name, info, self._rules))

    def footprint(self, info: ModelInfo, options: InstanceOptions) -> Footprint:
        """On CPU plain weights and KV are 32 bit, whatever the file has; KV for the context of
        one request: it grows with use, so that more are rarely held at once."""
        on_cpu = self._device == "cpu"
        context = context_length(info, options) or 0
        kv_bytes = (info.kv_bytes_per_token or 0) * context * (2 if on_cpu else 1)
        return Footprint(
            weights_bytes=info.weights_bytes + (_bytes_of_16_bit(info) if on_cpu else 0),
            kv_bytes=kv_bytes,
            overhead_bytes=OVERHEAD_BYTES,
            growing_bytes=kv_bytes,
        )

    def create(self, model_id: str, info: ModelInfo, options: InstanceOptions) -> ServedByChild:
        build = self._served_by_worker if self._binary is None else self._served_by_binary
        return ServedByChild(model_id, build(model_id, info, options), options)

    @cached_property
    def _binary(self) -> Binary | None:
        return find_binary(self._configured, ("mistralrs", OLD_BINARY))

    @cached_property
    def _installation(self) -> Installation:
        return installation(
            self.name,
            self._binary,
            WHEEL,
            option="--mistralrs",
            install=INSTALL,
            capabilities=CAPABILITIES,
        )

    @cached_property
    def _device(self) -> str:
        return device(self._installation.how)

    @cached_property
    def _rules(self) -> tuple[Rule, ...]:
        version = self._installation.version or "of unknown version"
        return rules(Knowledge(version, self._device, self._answer))

    # Architectures

    def _answer(self, name: str) -> str | None:
        """Asked of the engine itself; what cannot be asked is tried."""
        return self._probe.answer(name) if self._installation.usable else None

    @cached_property
    def _probe(self) -> ArchitectureProbe:
        found = self._installation
        return ArchitectureProbe(
            self._ask_binary if self._binary else _ask_worker,
            build=build_of(found.version, found.path),
            file=self._cache_dir / "mistral.rs-architectures.json",
        )

    def _ask_binary(self, names: Sequence[str]) -> Mapping[str, str]:
        """A build that knows a name complains about the rest of the stub and ends as well."""
        answers: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="router-probe-") as folder:
            for name in names:
                finished = run(
                    self._probing_command(write_stub(name, Path(folder))),
                    timeout_seconds=PROBE_SECONDS,
                )
                if finished is not None:
                    refused = refusal(finished.stdout + finished.stderr)
                    answers[name] = "text" if refused is None else refused
        return answers

    def _probing_command(self, stub: Path) -> list[str]:
        gguf = stub.suffix == ".gguf"
        weights = Weights(
            folder=str(stub.parent if gguf else stub), gguf=[stub.name] if gguf else []
        )
        return self._command.serve(weights, 1, 0)

    # Services

    def _served_by_binary(
        self, model_id: str, info: ModelInfo, options: InstanceOptions
    ) -> Service:
        """On a port: it knows no Unix sockets. Its view lasts as long as the daemon, because it
        opens the files when it likes; the model's next instance makes it anew."""
        digest = hashlib.blake2s(os.fsencode(model_id), digest_size=8).hexdigest()
        view = options.runtime_dir / f"view-{digest}"
        parallel = options.parallel

        def command(endpoint: Endpoint) -> list[str]:
            assert isinstance(endpoint, TcpEndpoint)
            return self._command.serve(_linked(info, model_id, view), parallel, endpoint.port)

        return Service(
            engine=self.name,
            version=self._installation.version,
            command=command,
            unix=False,
            folder=view,
            canary={"model": model_id, **CANARY},
        )

    def _served_by_worker(
        self, model_id: str, info: ModelInfo, options: InstanceOptions
    ) -> Service:
        def command(endpoint: Endpoint) -> list[str]:
            assert isinstance(endpoint, UnixEndpoint)
            return worker_command(
                model_id,
                info,
                options,
                endpoint.socket,
                context_length=context_length(info, options),
                multimodal=self._answer(question(info)) == "multimodal",
            )

        return Service(
            engine=self.name,
            version=self._installation.version,
            command=command,
            canary={"model": model_id, **CANARY},
        )

    @cached_property
    def _command(self) -> BinaryCommand:
        binary = self._binary
        assert binary is not None
        old = BinaryCommand(binary.path, "").old
        return BinaryCommand(binary.path, binary.ask(*([] if old else ["serve"]), "--help"))


def _ask_worker(names: Sequence[str]) -> Mapping[str, str]:
    return ask_worker("backends.workers.mistral_rs_probe", names)


def _linked(info: ModelInfo, name: str, view: Path) -> Weights:
    """Make the view anew, with the model in it under its served name."""
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir(mode=0o700)
    if info.format is not WeightFormat.GGUF:
        link_folder(info.folder, name, view)
        uqff = info.files if info.format is WeightFormat.UQFF else ()
        return Weights(folder=name, uqff=[file.name for file in uqff])
    gguf = [link.name for link in link_files(info.files, name, view)]
    mmproj = link_beside(info.mmproj, view / name) if info.mmproj else None
    return Weights(folder=name, gguf=gguf, mmproj=mmproj.name if mmproj else None)


def _bytes_of_16_bit(info: ModelInfo) -> int:
    if not isinstance(info.details, SafetensorsDetails):
        return 0
    sizes = info.details.dtype_bytes
    return sizes.get("F16", 0) + sizes.get("BF16", 0)
