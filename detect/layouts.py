"""Where models lie: plain trees, the Hugging Face cache, Ollama's store. Lists, opens no weights.

A `Place` is a folder that may hold models, with the name that they get from where it is.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from detect import quant_label, strict_json
from detect.listing import Entry, Listing, list_folder
from detect.regular_file import read_bounded
from detect.types import Skipped

MAX_DEPTH = 4
MAX_MANIFEST_BYTES = 1 << 20
MAX_MANIFESTS = 10_000

IGNORED_FOLDERS = re.compile(
    r"blobs|original|metal|onnx|openvino|coreml|__pycache__|checkpoint-\d+|datasets--.*|spaces--.*"
)
LEAF_FILES = frozenset({"model_index.json", "adapter_config.json"})
WEIGHTS = (".safetensors", ".gguf", ".bin", ".uqff", ".npz", ".pt", ".pth")

HF_REPO = "models--"
OLLAMA_DEFAULT_HOST = "registry.ollama.ai"
OLLAMA_DEFAULT_NAMESPACE = "library"
OLLAMA_MEDIA = "application/vnd.ollama.image."
DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
REVISION = re.compile(r"[0-9A-Za-z._-]{1,80}")


class Place(Struct, frozen=True, kw_only=True):
    """`listings` are the folder and its sub-folders of single quantisations.

    An empty `name` means that files name themselves; an `exact` one is the id as it stands.
    """

    name: str
    listings: tuple[Listing, ...]
    exact: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def main(self) -> Listing:
        return self.listings[0]


@dataclass(frozen=True, slots=True)
class TensorLayers:
    """A model of Ollama's own engine: one blob per tensor, which nothing else loads."""

    name: str
    folder: Path
    weights_bytes: int
    aliases: tuple[str, ...] = ()


Item = Place | TensorLayers | Skipped


def roots_of(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Below which links may end: the folders, and for part of a Hugging Face cache its repo."""
    resolved = [os.path.realpath(folder) for folder in folders]
    inside = [Path(folder) for folder in resolved if HF_REPO in folder]
    repos = [str(p) for r in inside for p in (r, *r.parents) if p.name.startswith(HF_REPO)]
    return tuple(map(Path, dict.fromkeys([*resolved, *repos])))


ListFolder = Callable[[Path, Sequence[Path]], Listing]


def survey(
    root: Path, roots: Sequence[Path], list_folder: ListFolder = list_folder
) -> Iterator[Item]:
    """Everything below a models folder, in the order of names."""
    return _Survey(roots, list_folder).enter(root, ())


def survey_one(folder: Path, roots: Sequence[Path]) -> Iterator[Item]:
    """A folder that was named itself, with its own roots; its models are named after it."""
    resolved = roots[0]
    parent = resolved.parent
    if parent.name == "snapshots" and parent.parent.name.startswith(HF_REPO):
        name = repo_name(parent.parent.name)
        return _Survey(roots).leaf(name, list_folder(folder, roots))
    if _is_repo(folder.name):
        return _Survey(roots).enter(folder, (folder.name,))
    return _Survey(roots).enter(folder, (resolved.name,))


def repo_name(folder: str) -> str:
    """`models--org--name` is `org/name`."""
    return folder.removeprefix(HF_REPO).replace("--", "/")


class _Survey:
    """One walk; remembers the folders it was in, so that no link leads in circles."""

    def __init__(self, roots: Sequence[Path], list_folder: ListFolder = list_folder) -> None:
        self._roots = roots
        self._list_folder = list_folder
        self._seen: set[tuple[int, int]] = set()

    def enter(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Item]:
        """Where the walk begins: a link back to it is a circle, too."""
        with contextlib.suppress(OSError):
            status = os.stat(folder)
            self._seen.add((status.st_dev, status.st_ino))
        return self.walk(folder, parts, 0)

    def walk(self, folder: Path, parts: tuple[str, ...], depth: int) -> Iterator[Item]:
        listing = self._list(folder)
        if _is_repo(folder.name):
            yield from self._repo(listing)
        elif _is_ollama(listing):
            yield from listing.skipped
            yield from self._ollama(listing)
        else:
            yield from self.leaf("/".join(parts), listing)
            yield from self._below(listing, parts, depth)

    def leaf(self, name: str, listing: Listing) -> Iterator[Item]:
        """The folder itself, together with its sub-folders that hold one quantisation each."""
        yield from listing.skipped
        listings = [listing]
        for entry in _quant_folders(listing) if name else ():
            inner = self._list(entry.path)
            if any(n.endswith(".gguf") for n in inner.files) and self._enter(entry):
                yield from inner.skipped
                listings.append(inner)
        if any(one.files or one.dangling for one in listings) or _packages(listing):
            yield Place(name=name, listings=tuple(listings))

    def _below(self, listing: Listing, parts: tuple[str, ...], depth: int) -> Iterator[Item]:
        if depth >= MAX_DEPTH or _is_leaf(listing, bool(parts)):
            return
        for entry in listing.folders.values():
            if IGNORED_FOLDERS.fullmatch(entry.name) or entry.identity in self._seen:
                continue
            if self._enter(entry):
                yield from self.walk(entry.path, (*parts, entry.name), depth + 1)

    def _list(self, folder: Path) -> Listing:
        return self._list_folder(folder, self._roots)

    def _enter(self, entry: Entry) -> bool:
        if entry.identity in self._seen:
            return False
        self._seen.add(entry.identity)
        return True

    # The Hugging Face cache

    def _repo(self, listing: Listing) -> Iterator[Item]:
        yield from listing.skipped
        snapshot = self._snapshot(listing)
        if snapshot is None:
            what = "Nothing of it was downloaded completely. Download it again with `hf download`."
            yield Skipped(listing.folder, "incomplete.partial", what)
        else:
            yield from self.leaf(repo_name(listing.folder.name), snapshot)

    def _snapshot(self, repo: Listing) -> Listing | None:
        """The one that `refs/main` means, else the newest, complete ones first."""
        snapshots = self._list(repo.folder / "snapshots").folders
        if (main := snapshots.get(_main_revision(repo))) is not None:
            return self._list(main.path)
        newest = sorted(snapshots.values(), key=lambda entry: -entry.changed_ns)
        listings = [self._list(entry.path) for entry in newest[:20]]
        complete = (one for one in listings if one.files and not one.dangling)
        return next(complete, next(iter(listings), None))

    # Ollama

    def _ollama(self, store: Listing) -> Iterator[Item]:
        blobs = self._list(store.folder / "blobs")
        for name, entry in self._manifests(store.folder / "manifests"):
            try:
                manifest = strict_json.parse(read_bounded(entry.path, MAX_MANIFEST_BYTES))
            except (OSError, ValueError) as error:
                what = f"Its manifest cannot be read ({str(error)[:100]})."
                yield Skipped(entry.path, "corrupt.header", what)
            else:
                yield _ollama_model(name, entry, _layers(manifest), blobs)

    def _manifests(self, folder: Path) -> Iterator[tuple[str, Entry]]:
        """Manifests lie at host/namespace/model/tag."""
        found = 0
        for host in self._list(folder).folders.values():
            for space in self._list(host.path).folders.values():
                for model in self._list(space.path).folders.values():
                    for tag in self._list(model.path).files.values():
                        found += 1
                        if found > MAX_MANIFESTS:
                            return
                        yield ollama_name(host.name, space.name, model.name, tag.name), tag


def ollama_name(host: str, namespace: str, model: str, tag: str) -> str:
    """As `ollama list` shows it: what is usual is left out, except for the tag."""
    parts = [host, namespace, model]
    if host == OLLAMA_DEFAULT_HOST:
        parts = parts[2:] if namespace == OLLAMA_DEFAULT_NAMESPACE else parts[1:]
    return "/".join(parts) + ":" + tag


def _ollama_model(
    name: str, manifest: Entry, layers: Sequence[tuple[str, str, int]], blobs: Listing
) -> Item:
    aliases = (name.removesuffix(":latest"),) if name.endswith(":latest") else ()
    tensors = [size for kind, _, size in layers if kind == "tensor"]
    if tensors:
        return TensorLayers(name, blobs.folder, sum(tensors), aliases)
    wanted = [digest for kind, digest, _ in layers if kind in ("model", "projector")]
    if not any(kind == "model" for kind, _, _ in layers):
        return Skipped(manifest.path, "unsupported.format", "Its manifest names no model.")
    names = [f"sha256-{digest}" for digest in wanted]
    listing = Listing(
        folder=blobs.folder,
        files={n: blobs.files[n] for n in names if n in blobs.files},
        dangling=frozenset(n for n in names if n not in blobs.files),
    )
    return Place(name=name, listings=(listing,), exact=True, aliases=aliases)


def _layers(manifest: Any) -> list[tuple[str, str, int]]:
    """Kind, digest and size of every layer that is well-formed."""
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    found = []
    for layer in layers if isinstance(layers, list) else ():
        media, digest, size = (
            (layer.get("mediaType"), layer.get("digest"), layer.get("size"))
            if isinstance(layer, dict)
            else (None, None, None)
        )
        if not isinstance(media, str) or not media.startswith(OLLAMA_MEDIA):
            continue
        if isinstance(digest, str) and (match := DIGEST.fullmatch(digest)):
            kind = media.removeprefix(OLLAMA_MEDIA)
            found.append((kind, match[1], size if type(size) is int and size > 0 else 0))
    return found


def _main_revision(repo: Listing) -> str:
    try:
        text = read_bounded(repo.folder / "refs" / "main", 1024).decode("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if REVISION.fullmatch(text) else ""


def _is_repo(name: str) -> bool:
    return name.startswith(HF_REPO) and len(name) > len(HF_REPO)


def _is_ollama(listing: Listing) -> bool:
    return {"manifests", "blobs"} <= set(listing.folders)


def _quant_folders(listing: Listing) -> list[Entry]:
    return [e for e in listing.folders.values() if quant_label.is_label(e.name)]


def _packages(listing: Listing) -> bool:
    """Core ML models are folders."""
    return any(name.endswith((".mlpackage", ".mlmodelc")) for name in listing.folders)


def _is_leaf(listing: Listing, named: bool) -> bool:
    """A folder that is one model; what lies below belongs to it.

    A models folder itself is none even if a model was saved right into it.
    """
    if not named:
        return "model_index.json" in listing.files
    if LEAF_FILES & set(listing.files):
        return True
    weights = any(n.endswith(WEIGHTS) and not n.endswith(".gguf") for n in listing.files)
    return "config.json" in listing.files and weights
