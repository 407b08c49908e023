"""How fast the detector is: `python -m tests.bench.detect`, which is `make bench-detect`.

Medians of wall time with a warm file cache; beside them the best of all runs and the least
processor time, which are nearer to what the code costs when the machine is busy. The other
readers take turns with ours on the same files. How fast Python itself is depends on how it was
built: without `--enable-optimizations` all of it takes longer.
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from detect import gguf_header
from detect.cache import Cache
from detect.safetensors_header import DTYPE_BITS
from detect.scan import inspect_path, scan
from tests.detect import raw_gguf, raw_safetensors
from tests.detect.raw_gguf import RawGGUF
from tests.detect.raw_safetensors import Spec
from tests.detect.trees import rest

LAYERS, HIDDEN, INNER, VOCABULARY, MERGES = 28, 1024, 3072, 151_936, 151_387
"""Of Qwen3 0.6B."""
LINEAR: Mapping[str, tuple[int, int]] = {
    "self_attn.q_proj": (2048, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, 2048),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
NORMS = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN,
         "self_attn.q_norm": 128, "self_attn.k_norm": 128}  # fmt: skip
CONFIG = {
    **raw_safetensors.CONFIG,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
}
TEMPLATE = "{% if tools %}{{ tools | tojson }}{% endif %}" + 60 * (
    "{% for message in messages %}{{ message.content }}{% endfor %}"
)


# The models


def network(layer: Callable[[str, int, int], dict[str, Spec]], layers: int) -> dict[str, Spec]:
    """The tensors of a model like Qwen3 0.6B, which has 28 layers: 310 if they are plain."""
    tensors = layer("model.embed_tokens", VOCABULARY, HIDDEN)
    for number in range(layers):
        base = f"model.layers.{number}"
        tensors |= {f"{base}.{name}.weight": ("BF16", (size,)) for name, size in NORMS.items()}
        for name, (outputs, inputs) in LINEAR.items():
            tensors |= layer(f"{base}.{name}", outputs, inputs)
    return tensors | {"model.norm.weight": ("BF16", (HIDDEN,))}


def write_safetensors(folder: Path, tensors: Mapping[str, Spec], **config: Any) -> Path:
    """Of full size, and sparse: nothing of the weights is on the disk."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    folder.mkdir(parents=True)
    raw = json.dumps(header, separators=(",", ":")).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_gguf(folder: Path, tokens: int, layers: int = LAYERS, merges: int = 0) -> Path:
    """With tokens of 6.4 bytes on average, and merges, if any, of 8.3."""
    vocabulary = {
        "tokenizer.ggml.tokens": _words(tokens, 6.4),
        "tokenizer.ggml.token_type": [1] * tokens,
        **({"tokenizer.ggml.merges": _words(merges, 8.3)} if merges else {}),
        "tokenizer.chat_template": TEMPLATE,
    }
    tensors: dict[str, tuple[int, Sequence[int]]] = {}
    tensors["token_embd.weight"] = (raw_gguf.Q4_K, (HIDDEN, tokens))
    for number in range(layers):
        for name in ("attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"):
            tensors[f"blk.{number}.{name}.weight"] = (raw_gguf.F32, (HIDDEN,))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            tensors[f"blk.{number}.{name}.weight"] = (raw_gguf.Q4_K, (HIDDEN, HIDDEN))
    raw = RawGGUF(metadata={**raw_gguf.llama(), **vocabulary}, tensors=tensors, data=False)
    path = raw.write(folder / f"{folder.name}.gguf")
    os.truncate(path, gguf_header.read_header(path).needed_bytes)
    return path


def _words(count: int, mean_bytes: float) -> list[str]:
    """Of various lengths, with a few long ones among them."""
    draw = random.Random(count)
    lengths = (draw.gammavariate(4, mean_bytes / 4) for _ in range(count))
    return ["x" * max(1, round(length)) for length in lengths]


def write_tree(root: Path, count: int) -> Path:
    """One third each of plain, MLX and GGUF models of four layers and a small vocabulary."""
    plain = network(raw_safetensors.plain, 4)
    packed = network(raw_safetensors.mlx(), 4)
    claim = {"group_size": 64, "bits": 4}
    for number in range(count):
        folder = root / f"org{number % 20:02}" / f"model-{number:05}"
        match number % 3:
            case 0:
                write_safetensors(folder, plain)
            case 1:
                write_safetensors(folder, packed, quantization=claim)
            case 2:
                write_gguf(folder, tokens=300, layers=4)
    return rest(root)


# Measuring


@dataclass(frozen=True, slots=True)
class Timing:
    """In milliseconds; `cpu` is the processor time of the run that took least of it."""

    median: float
    best: float
    cpu: float

    def __str__(self) -> str:
        return f"median {self.median:9.2f}   best {self.best:9.2f}   cpu {self.cpu:9.2f} ms"


def interleaved(runs: int, *works: Callable[[], object]) -> list[Timing]:
    walls: list[list[float]] = [[] for _ in works]
    cpus: list[list[float]] = [[] for _ in works]
    for _ in range(runs):
        for work, wall, cpu in zip(works, walls, cpus, strict=True):
            began, used = time.perf_counter(), time.process_time()
            work()
            wall.append(1000 * (time.perf_counter() - began))
            cpu.append(1000 * (time.process_time() - used))
    return [
        Timing(statistics.median(wall), min(wall), min(cpu))
        for wall, cpu in zip(walls, cpus, strict=True)
    ]


def bytes_read(path: Path) -> int:
    """Of one answer, over all files."""
    total = 0

    def counted(*arguments: int) -> bytes:
        nonlocal total
        content = pread(*arguments)
        total += len(content)
        return content

    pread = os.pread
    with mock.patch("os.pread", counted):
        inspect_path(path)
    return total


def show(what: str, timing: Timing, target: str = "") -> None:
    print(f"{what:46} {timing}   {target}", flush=True)


def one_model(path: Path, runs: int, target: str, peer: Callable[[], object], name: str) -> None:
    """By itself, and then in turns with a peer, after which the caches are cold."""
    inspect_path(path)
    (alone,) = interleaved(runs, lambda: inspect_path(path))
    ours, theirs = interleaved(runs, lambda: inspect_path(path), peer)
    show(f"inspect_path: {path.name}", alone, target)
    show("  in turns with the next", ours)
    show(f"  {name}", theirs, f"ours takes {ours.cpu / theirs.cpu:.3f} of its cpu")
    print(f"{'  bytes read':46} {bytes_read(path):,}", flush=True)


def tree(root: Path, count: int, runs: int) -> None:
    write_tree(root, count)
    file = root.with_suffix(".cache")
    (cold,) = interleaved(runs, lambda: scan([root]))
    show(f"scan: {count:,} models, cold", cold, "≤ 1 s for 1,000")
    held = Cache(file)
    scan([root], cache=held)
    again, fresh = interleaved(
        runs, lambda: scan([root], cache=held), lambda: scan([root], cache=Cache(file))
    )
    show("  unchanged, cache in memory (the daemon)", again, "≤ 50 ms for 1,000")
    show("  unchanged, cache read from disk", fresh)


def main() -> None:
    import gguf
    from safetensors import safe_open

    def peer(folder: Path) -> Callable[[], object]:
        def look() -> None:
            with safe_open(str(folder / "model.safetensors"), framework="np") as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    part = file.get_slice(name)
                    part.get_dtype(), part.get_shape()

        return look

    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        plain = write_safetensors(root / "plain-310", network(raw_safetensors.plain, LAYERS))
        packed = write_safetensors(
            root / "mlx-704",
            network(raw_safetensors.mlx(), LAYERS),
            quantization={"group_size": 64, "bits": 4},
        )
        tokens = write_gguf(root / "gguf-150k", 150_000)
        merges = write_gguf(root / "gguf-150k-merges", VOCABULARY, merges=MERGES)
        rest(root)
        target = "≤ 1 ms for 300 tensors"
        one_model(plain, 300, target, peer(plain), "safetensors.safe_open, every slice")
        one_model(packed, 300, "", peer(packed), "safetensors.safe_open, every slice")
        for vocabulary in (tokens, merges):
            reader = functools.partial(gguf.GGUFReader, str(vocabulary))
            one_model(vocabulary, 3, "≤ 25 ms for 150k tokens", reader, "gguf.GGUFReader")
        tree(root / "tree", 1000, 7)
        if "--short" not in sys.argv:
            tree(root / "forest", 10_000, 3)


if __name__ == "__main__":
    main()
