"""What stands beside the weights and shapes a prompt: chat templates, special tokens, sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.wire.json_file import json_object
from backends.wire.template import ChatTemplate, named
from detect import gguf_header

GGUF_TEMPLATE = "tokenizer.chat_template"
GGUF_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
}

Spell = Callable[[int], str]
"""A token's text."""


def template_of_folder(folder: Path) -> ChatTemplate:
    """From the first source that has one; the same order as transformers."""
    config = json_object(folder / "tokenizer_config.json")
    tokens = {**_tokens(json_object(folder / "special_tokens_map.json")), **_tokens(config)}
    for templates in (
        _files(folder),
        named(json_object(folder / "chat_template.json").get("chat_template")),
        named(config.get("chat_template")),
    ):
        if templates:
            return ChatTemplate(templates, tokens)
    return ChatTemplate({}, tokens)


def template_of_gguf(file: Path, spell: Spell) -> ChatTemplate:
    header = gguf_header.read_header(file)
    templates = {
        key.removeprefix(GGUF_TEMPLATE).removeprefix(".") or "default": value
        for key, value in header.metadata.items()
        if key.startswith(GGUF_TEMPLATE) and isinstance(value, str)
    }
    ids = {name: header.number(key) for name, key in GGUF_TOKENS.items()}
    tokens = {name: spell(token) for name, token in ids.items() if token is not None}
    return ChatTemplate(templates, tokens)


def stop_ids_of_folder(folder: Path) -> frozenset[int]:
    """Tokens that end an answer, where transformers looks for them."""
    for name in ("generation_config.json", "config.json"):
        match json_object(folder / name).get("eos_token_id"):
            case bool() | None:
                continue
            case int() as token:
                return frozenset({token})
            case list() as tokens:
                return frozenset(token for token in tokens if type(token) is int)
    return frozenset()


def stop_ids_of_gguf(file: Path) -> frozenset[int]:
    token = gguf_header.read_header(file).number(GGUF_TOKENS["eos_token"])
    return frozenset() if token is None else frozenset({token})


def _files(folder: Path) -> dict[str, str]:
    own = folder / "chat_template.jinja"
    if not own.is_file():
        return {}
    others = (folder / "additional_chat_templates").glob("*.jinja")
    return {"default": own.read_text()} | {file.stem: file.read_text() for file in others}


def _tokens(config: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: _text(value) for key, value in config.items() if key.endswith("_token")}
    return {key: text for key, text in texts.items() if text is not None}


def _text(value: Any) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None
