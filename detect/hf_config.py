"""The JSON files beside safetensors weights, as plain data: claims, never executed or rendered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from msgspec import Struct, field

from detect import strict_json
from detect.listing import Listing
from detect.pooling import MODULES, read_pooling
from detect.regular_file import read_bounded
from detect.types import Pooling, Problem

MAX_CONFIG_BYTES = 10 << 20
MAX_INDEX_BYTES = 100 << 20
MAX_NUMBER = 2**53

SIDE_CONFIGS = (
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
    "quantization_config.json",
    "quanto_qmap.json",
)
TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
INDEX = "model.safetensors.index.json"
GENERATION = "generation_config.json"

COMPLAINTS = {
    "config.json": "missing.config",
    GENERATION: "missing.config",
    INDEX: "corrupt.index_mismatch",
}
"""The codes of problems with files that engines cannot do without, or stumble over."""

FILE_NAME = re.compile(r"[^/\\\0]{1,255}")

Json = Mapping[str, Any]


class Configs(Struct, frozen=True, kw_only=True, dict=True):
    """Everything read; an absent or unreadable file is an empty mapping or None."""

    config: Json = field(default_factory=dict)
    tokenizer: Json = field(default_factory=dict)
    side: Json = field(default_factory=dict)
    adapter: Json = field(default_factory=dict)
    sentence_bert: Json = field(default_factory=dict)
    pooling: Pooling | None = None
    generation: Json | None = field(default_factory=dict)
    """None when there is one and it is no JSON object."""
    templates: tuple[str, ...] = ()
    weight_map: Mapping[str, str] | None = None
    """Tensor name to file name, as `model.safetensors.index.json` has it."""
    stated_parameters: int | None = None
    has_config: bool = False
    problems: tuple[Problem, ...] = ()

    @cached_property
    def text(self) -> Json:
        """The part that describes the language model, in multimodal configs a nested one."""
        for key in TEXT_CONFIGS:
            if found := mapping(self.config.get(key)):
                return found
        return self.config

    @cached_property
    def architectures(self) -> tuple[str, ...]:
        value = self.config.get("architectures")
        names = value if isinstance(value, list) else ()
        return tuple(name for name in names if isinstance(name, str))

    @cached_property
    def model_type(self) -> str | None:
        return text(self.config.get("model_type"))

    @property
    def quantization(self) -> Json:
        """MLX's own claim, which other tools do not write."""
        return mapping(self.value("quantization"))

    @property
    def quantization_config(self) -> Json:
        return mapping(self.value("quantization_config")) or mapping(
            self.config.get("compression_config")
        )

    @cached_property
    def claim(self) -> Json:
        """What the configs say about quantisation, from wherever they say it."""
        return self.quantization_config or self.quantization or self.side

    @property
    def quant_method(self) -> str | None:
        return text(self.claim.get("quant_method"))

    def value(self, key: str) -> Any:
        """The value at top level or, failing that, in the text part."""
        found = self.config.get(key)
        return self.text.get(key) if found is None else found

    def number(self, *keys: str) -> int | None:
        """The first positive whole number under these keys; the text part goes first."""
        for place in (self.text, self.config):
            for key in keys:
                if key in place and (found := number(place[key])):
                    return found
        return None


def mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value else None


def number(value: Any) -> int | None:
    """A whole number in the range that every reader agrees on, else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < MAX_NUMBER else None


def read_configs(listing: Listing) -> Configs:
    """Never raises: what cannot be read is a problem."""
    reader = _Reader(listing)
    config = reader.mapping("config.json")
    tokenizer = reader.mapping("tokenizer_config.json")
    index = reader.mapping(INDEX, MAX_INDEX_BYTES)
    weight_map = _weight_map(index)
    if INDEX in listing.files and weight_map is None and not reader.failed(INDEX):
        reader.complain(INDEX, "has no weight_map")
    return Configs(
        config=config,
        tokenizer=tokenizer,
        side=next((v for n in SIDE_CONFIGS if (v := reader.mapping(n))), {}),
        adapter=reader.mapping("adapter_config.json"),
        sentence_bert=reader.mapping("sentence_bert_config.json"),
        pooling=read_pooling(listing) if MODULES in listing.files else None,
        generation=reader.generation(),
        templates=tuple(_templates(reader, tokenizer)),
        weight_map=weight_map,
        stated_parameters=number(mapping(index.get("metadata")).get("total_parameters")),
        has_config="config.json" in listing.files,
        problems=tuple(reader.problems),
    )


class _Reader:
    """Reads the files of one folder and collects what is wrong with them."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.problems: list[Problem] = []
        self._failed: set[str] = set()

    def mapping(self, name: str, limit: int = MAX_CONFIG_BYTES) -> Json:
        entry = self._listing.files.get(name)
        if entry is None:
            return {}
        try:
            value = strict_json.parse(read_bounded(entry.path, limit))
        except (OSError, ValueError) as error:
            self.complain(name, f"cannot be read ({str(error)[:100]})")
            return {}
        if not isinstance(value, dict):
            self.complain(name, "is not a JSON object")
            return {}
        return value

    def generation(self) -> Json | None:
        """What is no JSON at all is passed over by every engine, so it is as good as absent; what
        is no text is not."""
        entry = self._listing.files.get(GENERATION)
        if entry is None:
            return {}
        try:
            value = strict_json.parse(read_bounded(entry.path, MAX_CONFIG_BYTES))
        except json.JSONDecodeError:
            return {}
        except (OSError, ValueError) as error:
            self.complain(GENERATION, f"cannot be read ({str(error)[:100]})")
            return None
        return value if isinstance(value, dict) else None

    def text(self, name: str) -> str:
        entry = self._listing.files.get(name)
        try:
            return read_bounded(entry.path, MAX_CONFIG_BYTES).decode() if entry else ""
        except (OSError, ValueError) as error:
            self.complain(name, f"cannot be read ({str(error)[:100]})")
            return ""

    def failed(self, name: str) -> bool:
        return name in self._failed

    def complain(self, name: str, what: str) -> None:
        self._failed.add(name)
        code = COMPLAINTS.get(name, "conflict.config_vs_tensors")
        self.problems.append(Problem(code, f"{name} {what}. Download it again."))


def _weight_map(index: Json) -> Mapping[str, str] | None:
    """None unless it maps names to plain file names: a path could lead out of the folder."""
    entries = index.get("weight_map")
    if not isinstance(entries, dict) or not entries:
        return None
    if not all(isinstance(file, str) for file in entries.values()):
        return None
    files = set(entries.values())
    return entries if all(FILE_NAME.fullmatch(file) for file in files) else None


def _templates(reader: _Reader, tokenizer: Json) -> list[str]:
    """The chat templates, of the first source that has any."""
    if own := reader.text("chat_template.jinja"):
        return [own]
    for value in (
        reader.mapping("chat_template.json").get("chat_template"),
        tokenizer.get("chat_template"),
    ):
        if isinstance(value, str) and value:
            return [value]
        if isinstance(value, list):
            named = [mapping(v).get("template") for v in value]
            return [template for template in named if isinstance(template, str)]
    return []
