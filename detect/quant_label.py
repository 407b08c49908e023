"""GGUF quantisation labels (`Q4_K_M`), as files, folders and headers carry them. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from detect.gguf_header import GGUFHeader, GGUFTensor

LABEL = (
    r"(?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|T?Q\d_\d|TQ\d_\d|B?F16|FP16|FP32|F32|F64|MXFP4(?:_[A-Z]+)*"
    r"|NVFP4(?:_[A-Z]+)*)"
)
AT_END = re.compile(rf"(?P<prefix>.*?)(?:^|[-._])(?P<label>{LABEL})", re.IGNORECASE)
ALONE = re.compile(LABEL, re.IGNORECASE)

FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""`general.file_type`: a claim, see `of_header`."""

BASES: Mapping[str, str] = {
    "Q2_K_S": "Q2_K", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "IQ2_M": "IQ2_S", "MXFP4_MOE": "MXFP4",
}  # fmt: skip
"""The tensor type that a label is made of, where it is not its beginning."""


def of_name(stem: str) -> str | None:
    """The label at the end of a file's stem, upper-cased."""
    match = AT_END.fullmatch(stem)
    return match["label"].upper() if match else None


def without_label(stem: str) -> str:
    match = AT_END.fullmatch(stem)
    return match["prefix"] if match else stem


def is_label(name: str) -> bool:
    return ALONE.fullmatch(name) is not None


def of_header(header: GGUFHeader, tensors: Iterable[GGUFTensor]) -> tuple[str | None, str]:
    """The label, and what shows it: the file's own where its tensors do not speak against it."""
    sizes = bytes_by_type(tensors, matrices_only=True)
    claimed = FILE_TYPES.get(header.number("general.file_type") or -1)
    if header.number("general.file_type") == 0:
        claimed = "F32"
    if not sizes:
        return claimed, "general.file_type"
    if claimed is not None and any(_made_of(claimed, name) for name in sizes):
        return claimed, f"general.file_type, and tensors of {_listed(sizes)}"
    return max(sizes, key=lambda name: sizes[name]), f"tensors of {_listed(sizes)}"


def bytes_by_type(tensors: Iterable[GGUFTensor], *, matrices_only: bool = False) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if not matrices_only or len(tensor.shape) > 1:
            sizes[tensor.type.name] += tensor.nbytes
    return dict(sizes.most_common())


def _made_of(label: str, tensor_type: str) -> bool:
    base = BASES.get(label, label)
    return base == tensor_type or base.startswith(tensor_type + "_")


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(list(sizes)[:4])
