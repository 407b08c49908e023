"""Empty models that make mistral.rs say whether it knows an architecture.

Names are `hf:<class in config.json>` and `gguf:<general.architecture>`; `pre:<name>` asks about a
pre-tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path

from backends.stub import PRE_TOKENIZER, gguf_question, safetensors_stub

NEEDS_PROJECTOR = "needs-projector"
"""The answer for a GGUF architecture that is loaded together with a projector only."""

REFUSALS = (
    ("Unsupported Hugging Face Transformers", ""),
    ("Unknown normal-model GGUF architecture", ""),
    ("is not supported for standalone conversion", ""),
    ("supported only as a multimodal model", NEEDS_PROJECTOR),
)

TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
}


def refusal(words: str) -> str | None:
    """The answer in the engine's words, None if they are about something else than the name:
    then it has accepted the name."""
    return next((answer for message, answer in REFUSALS if message in words), None)


def write_stub(name: str, folder: Path) -> Path:
    """The model for one question; each replaces the one before it."""
    kind, _, architecture = name.partition(":")
    return STUBS[kind](architecture, folder)


def _hf_stub(architecture: str, folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "model.safetensors").write_bytes(safetensors_stub())
    return folder


def _gguf_stub(architecture: str, folder: Path) -> Path:
    own = folder / "gguf"
    own.mkdir(exist_ok=True)
    file = own / "stub.gguf"
    file.write_bytes(gguf_question(architecture))
    return file


def _pre_tokenizer_stub(name: str, folder: Path) -> Path:
    return _gguf_stub(f"{PRE_TOKENIZER}{name}", folder)


STUBS = {"hf": _hf_stub, "gguf": _gguf_stub, "pre": _pre_tokenizer_stub}
