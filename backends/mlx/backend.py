"""What the installed mlx-lm can run, on this machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from backends.base import (
    Footprint,
    Installation,
    Instance,
    InstanceOptions,
    Isolation,
    Verdict,
)
from backends.headers import context_length
from backends.mlx import library
from backends.mlx.embedder import Embedder
from backends.mlx.engine import Engine
from backends.mlx.instance import MLXInstance
from backends.mlx.options import EngineOptions
from backends.mlx.thread import EngineThread
from backends.mlx.verdict import rules
from backends.proxy import Endpoint, UnixEndpoint
from backends.served import ServedByChild, Service
from backends.verdicts import Rule, if_installed, judge
from backends.wire.embeddings import EMBEDDINGS_PATH
from backends.wire.features import MLX, honoured
from backends.wire.request import TEXT_PATH
from detect.fingerprint import fingerprint
from detect.types import ModelInfo, Role

OVERHEAD_BYTES = 400 * 2**20
"""Interpreter, mlx and transformers in memory, and the buffers that MLX keeps for reuse."""


TEXT_CANARY: dict[str, Any] = {"prompt": "a", "max_tokens": 1, "temperature": 0}
VECTOR_CANARY: dict[str, Any] = {"input": "a"}


def device() -> str:
    """`metal`, `cuda` or `cpu`: what mlx computes on here, told without importing it."""
    if sys.platform == "darwin":
        return "metal"
    for distribution in ("mlx-cuda-13", "mlx-cuda-12"):
        try:
            importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        return "cuda"
    return "cpu"


class MLXBackend:
    """mlx-lm, in this process or in a worker."""

    name = "mlx"

    def __init__(self, on_device: str | None = None) -> None:
        self._device = on_device or device()
        self.thread = EngineThread()

    def installation(self) -> Installation:
        version, folder = library.version(), library.folder()
        problem, remedy = "", ""
        if version is None or folder is None:
            problem, remedy = "mlx-lm is not installed.", f"Run `{_install_command()}`."
        elif importlib.util.find_spec("mlx") is None:
            problem = "mlx-lm is installed without mlx itself."
            remedy = f"Run `{_install_command()}`."
        elif sys.platform == "darwin" and platform.machine() != "arm64":
            problem, remedy = "mlx needs a Mac with Apple silicon.", ""
        return Installation(
            engine=self.name,
            version=version,
            how="in-process",
            path=folder,
            capabilities=self._capabilities(),
            problem=problem,
            remedy=remedy,
        )

    def _capabilities(self) -> tuple[str, ...]:
        count = len(self._supported.modules)
        return ("MLX and safetensors models", f"{count} architectures", f"on {self._device}")

    def honoured(self) -> frozenset[str]:
        return honoured(MLX)

    def prepare(self, infos: Sequence[ModelInfo]) -> None:
        """Its files are read once, whatever is asked."""

    def verdict(self, info: ModelInfo) -> Verdict:
        return if_installed(self._installation, judge(self.name, info, self._rules))

    def footprint(self, info: ModelInfo, options: InstanceOptions) -> Footprint:
        """Weights as stored, twice for block FP8; KV at 16 bit for the context of one request:
        it grows with use, so that more are rarely held at once."""
        fp8 = info.quantization is not None and info.quantization.method == "fp8"
        factor = 2 if fp8 else 1
        context = context_length(info, options) or 0
        kv_bytes = (info.kv_bytes_per_token or 0) * context * (options.kv_bits or 16) // 16
        overhead_bytes = OVERHEAD_BYTES + _prefix_bytes(info, options)
        return Footprint(
            weights_bytes=info.weights_bytes * factor + _relatives_bytes(options),
            kv_bytes=kv_bytes,
            overhead_bytes=overhead_bytes,
            growing_bytes=kv_bytes + overhead_bytes,
        )

    def create(self, model_id: str, info: ModelInfo, options: InstanceOptions) -> Instance:
        if options.isolation is Isolation.WORKER:
            return ServedByChild(model_id, _worker(model_id, info, options), options)
        self.thread.stall_seconds = options.patience.stall_seconds
        kind = Embedder if info.role is Role.EMBEDDING else Engine
        engine = kind(model_id, info.folder, _engine_options(info, options), thread=self.thread)
        return MLXInstance(model_id, engine, options)

    @cached_property
    def _installation(self) -> Installation:
        return self.installation()

    @cached_property
    def _supported(self) -> library.Supported:
        folder = library.folder()
        return library.supported(folder) if folder else library.Supported(frozenset(), {})

    @cached_property
    def _rules(self) -> tuple[Rule, ...]:
        return rules(self._supported, library.version() or "", self._device)


PREFIX_CONTEXTS = 4
"""Contexts' worth of prompts that are kept at most: more helps nobody who asks one model."""

LEAST_PREFIX_BYTES = 64 * 2**20
"""Recurrent states do not grow with the context."""


def _relatives_bytes(options: InstanceOptions) -> int:
    """Of an adapter and a draft, by their files: their headers were not read for this model."""
    folders = [folder for folder in (options.adapter, options.draft) if folder is not None]
    files = [file for folder in folders for file in folder.glob("*.safetensors")]
    return sum(file.stat().st_size for file in files if file.is_file())


def _prefix_bytes(info: ModelInfo, options: InstanceOptions) -> int:
    if info.role is Role.EMBEDDING:
        return 0
    context = context_length(info, options) or 0
    of_use = PREFIX_CONTEXTS * (info.kv_bytes_per_token or 0) * context
    return min(options.prefix_bytes, max(of_use, LEAST_PREFIX_BYTES))


def _engine_options(info: ModelInfo, options: InstanceOptions) -> EngineOptions:
    return EngineOptions(
        context_length=context_length(info, options),
        max_rows=options.parallel,
        prefix_bytes=_prefix_bytes(info, options),
        disk_folder=_disk_folder(info, options),
        disk_bytes=options.prefix_disk_bytes,
        adapter=options.adapter,
        draft=options.draft,
        kv_bits=options.kv_bits,
    )


def _disk_folder(info: ModelInfo, options: InstanceOptions) -> Path | None:
    """One for everything that a prompt's state depends on: the files, mlx-lm and how it is used."""
    if options.cache_dir is None or not options.prefix_disk_bytes:
        return None
    adapter = _changes(options.adapter) if options.adapter else ()
    facts = (fingerprint(info), adapter, library.version(), options.kv_bits, str(options.draft))
    digest = hashlib.blake2b(repr(facts).encode(errors="replace"), digest_size=16).hexdigest()
    return options.cache_dir / "prompts" / digest


def _changes(adapter: Path) -> tuple[object, ...]:
    try:
        status = (adapter / "adapters.safetensors").stat()
    except OSError:
        return ()
    return str(adapter), status.st_size, status.st_mtime_ns, status.st_ino


def _worker(model_id: str, info: ModelInfo, options: InstanceOptions) -> Service:
    embeds = info.role is Role.EMBEDDING

    def command(endpoint: Endpoint) -> list[str]:
        assert isinstance(endpoint, UnixEndpoint)
        return [
            *(sys.executable, "-m", "backends.workers.mlx"),
            *("--folder", str(info.folder)),
            *("--socket", str(endpoint.socket)),
            f"--alias={model_id}",
            *(("--embedding",) if embeds else ()),
            *("--options", _engine_options(info, options).to_json()),
        ]

    path, canary = (EMBEDDINGS_PATH, VECTOR_CANARY) if embeds else (TEXT_PATH, TEXT_CANARY)
    return Service(
        engine="mlx",
        version=library.version(),
        command=command,
        canary_path=path,
        canary={"model": model_id, **canary},
        tells=True,
    )


def _install_command() -> str:
    return 'pip install "mlx-lm[cpu]"' if sys.platform == "linux" else 'pip install "mlx-lm"'
