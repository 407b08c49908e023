"""llama.cpp: the user's `llama-server`, else the server inside the `xllamacpp` wheel."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from backends.base import Footprint, Installation, InstanceOptions, Support, Verdict
from backends.headers import (
    context_length,
    gguf_details,
    has_no_pre_tokenizer,
    pre_tokenizer,
)
from backends.installed import Binary, Wheel, find_binary, installation
from backends.probe import ArchitectureProbe, ask_worker, build_of, run
from backends.proxy import Endpoint, UnixEndpoint
from backends.served import ServedByChild, Service
from backends.shared_rules import ADAPTER, NO_GGUF_TOKENIZER, OLLAMAS_LAYOUT
from backends.stub import PRE_TOKENIZER, gguf_question, said_of
from backends.verdicts import Reason, Rule, if_installed, judge
from backends.wire.features import honoured
from detect.types import ModelInfo, Role, WeightFormat

ENGINE = "llama.cpp"
DEFAULT_CONTEXT = 8192
"""Tokens, for the rare file that states none."""

PROMPT_CACHE_MIB = 512
"""What llama-server may keep of earlier prompts outside its slots; its own default is 8 GiB."""

OVERHEAD_BYTES = (PROMPT_CACHE_MIB + 256) * 2**20

CANARIES: dict[Role, tuple[str, dict[str, Any]]] = {
    Role.EMBEDDING: ("/v1/embeddings", {"input": "a"}),
    Role.RERANKER: ("/v1/rerank", {"query": "a", "documents": ["a"]}),
}
TEXT_CANARY: tuple[str, dict[str, Any]] = (
    "/v1/completions",
    {"prompt": "a", "max_tokens": 1, "temperature": 0, "cache_prompt": False},
)

ROLE_FLAGS: dict[Role, tuple[str, ...]] = {
    Role.EMBEDDING: ("--embedding",),
    Role.RERANKER: ("--embedding", "--pooling", "rank"),
}

SERVED_ROLES = frozenset(
    (Role.GENERATIVE, Role.VISION, Role.EMBEDDING, Role.RERANKER, Role.UNKNOWN)
)
WHOLE_TOKENS = 2048
"""Longest text whose tokens are looked at all at once, as encoders do, within the model's context:
llama-server's own limit is 512, and the memory for it is taken at the start."""

NO_WEIGHTS = frozenset(("Q8_1", "Q8_K"))
"""Types of what it computes in between; as weights it has no arithmetic for them."""

CAPABILITIES = ("GGUF models", "images with an mmproj file")
WHEEL = Wheel(distribution="xllamacpp", module="xllamacpp")
INSTALL = (
    "Install llama.cpp so that `llama-server` is on PATH, "
    'or run `pip install "local-model-router[llama-cpp]"`.'
)


PROBE_SECONDS = 20.0


class LlamaCppBackend:
    """Every GGUF text model; embeddings, reranking and vision where the file is made for it."""

    name = ENGINE

    def __init__(self, *, binary: Path | None, cache_dir: Path) -> None:
        self._configured = binary
        self._cache_dir = cache_dir

    def installation(self) -> Installation:
        return self._installation

    def honoured(self) -> frozenset[str]:
        return honoured(ENGINE)

    def prepare(self, infos: Sequence[ModelInfo]) -> None:
        """The rules themselves ask, and one process answers for all of them."""
        with self._probe.together():
            for info in infos:
                self.verdict(info)

    def verdict(self, info: ModelInfo) -> Verdict:
        return if_installed(self._installation, judge(self.name, info, self._rules))

    def footprint(self, info: ModelInfo, options: InstanceOptions) -> Footprint:
        """Weights as stored; one pool of KV at 16 bit that all slots share."""
        return Footprint(
            weights_bytes=info.weights_bytes,
            kv_bytes=(info.kv_bytes_per_token or 0) * slots_context(info, options),
            overhead_bytes=OVERHEAD_BYTES,
            growing_bytes=PROMPT_CACHE_MIB * 2**20,
        )

    def create(self, model_id: str, info: ModelInfo, options: InstanceOptions) -> ServedByChild:
        command = self._binary_command if self._binary else _worker_command

        def argv(endpoint: Endpoint) -> list[str]:
            assert isinstance(endpoint, UnixEndpoint)
            return command(model_id, info, options, endpoint.socket)

        path, canary = CANARIES.get(info.role, TEXT_CANARY)
        service = Service(
            engine=self.name,
            version=self._installation.version,
            command=argv,
            canary_path=path,
            canary={"model": model_id, **canary},
        )
        return ServedByChild(model_id, service, options)

    @cached_property
    def _binary(self) -> Binary | None:
        return find_binary(self._configured, ("llama-server",))

    @cached_property
    def _installation(self) -> Installation:
        return installation(
            self.name,
            self._binary,
            WHEEL,
            option="--llama-server",
            install=INSTALL,
            capabilities=CAPABILITIES,
        )

    @cached_property
    def _rules(self) -> tuple[Rule, ...]:
        version = self._installation.version or "of unknown version"
        return (
            Rule(
                when=lambda info: info.format is not WeightFormat.GGUF,
                code=Reason.UNSUPPORTED_FORMAT,
                reason="reads GGUF only",
                remedy=_get_a_gguf,
            ),
            ADAPTER,
            OLLAMAS_LAYOUT,
            Rule(
                when=lambda info: info.role not in SERVED_ROLES,
                code=Reason.UNSUPPORTED_ROLE,
                reason=lambda info: f"answers with text, and this file's role is {info.role}",
            ),
            Rule(
                when=lambda info: (
                    info.role is Role.EMBEDDING and not gguf_details(info).pooling_type
                ),
                code=Reason.UNSUPPORTED_ROLE,
                reason="the file does not say how its vectors are made (`pooling_type`)",
                remedy="Convert it anew with a current llama.cpp, or download another GGUF of it.",
            ),
            Rule(
                when=lambda info: not self._knows(info),
                code=Reason.UNSUPPORTED_ARCH,
                reason=lambda info: (
                    f"llama.cpp {version} does not know the architecture {info.architecture.gguf!r}"
                ),
                remedy="A newer llama.cpp may.",
            ),
            Rule(
                when=lambda info: bool(_without_arithmetic(info)),
                code=Reason.UNSUPPORTED_QUANT,
                reason=lambda info: (
                    f"computes nothing with tensors of type {', '.join(_without_arithmetic(info))}"
                ),
                remedy="Download a K-quant of the model, e.g. Q4_K_M.",
            ),
            NO_GGUF_TOKENIZER,
            Rule(
                when=has_no_pre_tokenizer,
                code=Reason.MISSING_TOKENIZER,
                reason="the file does not name its pre-tokenizer, so text may be split wrongly",
                remedy="Convert it anew with a current llama.cpp.",
                support=Support.LIMITED,
            ),
            Rule(
                when=lambda info: not self._knows_pre_tokenizer(info),
                code=Reason.MISSING_TOKENIZER,
                reason=lambda info: (
                    f"llama.cpp {version} does not know the pre-tokenizer {pre_tokenizer(info)!r}"
                ),
                remedy="A newer llama.cpp may.",
            ),
        )

    # Architectures

    def _knows(self, info: ModelInfo) -> bool:
        """Asked of the engine itself; what cannot be asked is tried."""
        architecture = info.architecture.gguf
        if architecture is None or not self._installation.usable:
            return architecture is not None
        return self._probe.knows(architecture) is not False

    def _knows_pre_tokenizer(self, info: ModelInfo) -> bool:
        name = pre_tokenizer(info)
        if name is None or not self._installation.usable:
            return True
        return self._probe.knows(f"{PRE_TOKENIZER}{name}") is not False

    @cached_property
    def _probe(self) -> ArchitectureProbe:
        found = self._installation
        return ArchitectureProbe(
            self._ask_binary if self._binary else _ask_worker,
            build=build_of(found.version, found.path),
            file=self._cache_dir / "llama.cpp-architectures.json",
        )

    def _ask_binary(self, names: Sequence[str]) -> Mapping[str, str]:
        """A build that knows a name complains about the rest of the stub and ends as well."""
        assert self._binary is not None
        answers: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="router-probe-") as folder:
            stub = Path(folder, "stub.gguf")
            for name in names:
                stub.write_bytes(gguf_question(name))
                socket = Path(folder, "s.sock")
                argv = [str(self._binary.path), "--model", str(stub), "--host", str(socket)]
                if (finished := run(argv, timeout_seconds=PROBE_SECONDS)) is not None:
                    answers |= said_of(name, finished.stdout + finished.stderr)
        return answers

    # Command lines

    def _binary_command(
        self, model_id: str, info: ModelInfo, options: InstanceOptions, socket: Path
    ) -> list[str]:
        """It takes a host that ends in `.sock` for a Unix socket."""
        assert self._binary is not None
        flags = [
            str(self._binary.path),
            *("--model", str(info.files[0])),
            *("--host", str(socket)),
            *("--alias", model_id),
            *("--ctx-size", str(slots_context(info, options))),
            *("--parallel", str(options.parallel)),
            *self._listed("--cache-ram", str(PROMPT_CACHE_MIB)),
            *self._listed("--kv-unified"),
            *self._listed("--jinja"),
            *self._listed("--no-prefill-assistant"),
            *self._listed("--offline"),
            *(self._listed("--no-ui") or self._listed("--no-webui")),
            *ROLE_FLAGS.get(info.role, ()),
        ]
        if info.role in ROLE_FLAGS:
            tokens = str(_whole_tokens(info, options))
            flags += ["--batch-size", tokens, "--ubatch-size", tokens]
        if info.mmproj is not None:
            flags += ["--mmproj", str(info.mmproj)]
        return flags

    def _listed(self, *flag: str) -> list[str]:
        """A flag that this build may lack: flags come and go between builds."""
        return list(flag) if flag[0] in self._help else []

    @cached_property
    def _help(self) -> str:
        assert self._binary is not None
        return self._binary.ask("--help")


def _ask_worker(names: Sequence[str]) -> Mapping[str, str]:
    return ask_worker("backends.workers.llama_cpp_probe", names)


def _worker_command(
    model_id: str, info: ModelInfo, options: InstanceOptions, socket: Path
) -> list[str]:
    flags = [
        *(sys.executable, "-m", "backends.workers.llama_cpp"),
        *("--model", str(info.files[0])),
        *("--socket", str(socket)),
        f"--alias={model_id}",
        *("--context", str(slots_context(info, options))),
        *("--parallel", str(options.parallel)),
        *("--cache-ram", str(PROMPT_CACHE_MIB)),
        *ROLE_FLAGS.get(info.role, ()),
    ]
    if info.role in ROLE_FLAGS:
        flags += ["--batch", str(_whole_tokens(info, options))]
    if info.mmproj is not None:
        flags += ["--mmproj", str(info.mmproj)]
    return flags


def slots_context(info: ModelInfo, options: InstanceOptions) -> int:
    """Tokens that all slots together may hold."""
    return context_length(info, options) or DEFAULT_CONTEXT


def _whole_tokens(info: ModelInfo, options: InstanceOptions) -> int:
    return min(slots_context(info, options), WHOLE_TOKENS)


def _without_arithmetic(info: ModelInfo) -> list[str]:
    return sorted(NO_WEIGHTS.intersection(gguf_details(info).tensor_type_bytes))


def _get_a_gguf(info: ModelInfo) -> str:
    convertible = info.format is WeightFormat.SAFETENSORS and info.quantization is None
    make = ", or make one with llama.cpp's convert_hf_to_gguf.py" if convertible else ""
    return f"Download a GGUF of the model, e.g. in Q4_K_M{make}."
