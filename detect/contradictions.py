"""Where the configs and the tensors disagree. Pure: each check gives sentences, or none.

A contradiction is no verdict: engines believe different sides, so each judges for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from detect.census import PLAIN, UNKNOWN
from detect.facts import Understood
from detect.hf_config import MAX_NUMBER
from detect.parameters import expert_count
from detect.types import Problem

CODE = "conflict.config_vs_tensors"
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")

SAME_METHOD = {
    "mlx": {"mlx", "afq", "auto-round"},
    "mxfp4": {"mxfp4"},
    "fp8": {"fp8", "fbgemm_fp8", "modelopt", "compressed-tensors"},
    "gptq": {"gptq", "marlin", "auto-round"},
    "awq": {"awq", "auto-round"},
    "modelopt": {"modelopt", "nvfp4"},
}


def find(model: Understood) -> tuple[Problem, ...]:
    found = (sentence for check in CHECKS for sentence in check(model))
    return (*_absurd_layers(model), *(Problem(CODE, sentence) for sentence in found))


def _architectures(model: Understood) -> Iterator[str]:
    count = len(model.configs.architectures)
    if model.configs.has_config and count != 1:
        what = "no architecture" if count == 0 else f"{count} architectures"
        yield f"config.json names {what}; it should name exactly one."


def _claimed_but_plain(model: Understood) -> Iterator[str]:
    claim = model.configs.claim
    if claim and model.census.main == PLAIN and model.quantization is None:
        method = model.configs.quant_method or "quantised weights"
        yield f"config.json claims {method}, and all tensors are plain floats."


def _silent_but_quantized(model: Understood) -> Iterator[str]:
    quantized = model.census.main not in (PLAIN, UNKNOWN)
    if quantized and model.configs.has_config and not model.configs.claim:
        yield (
            f"the tensors are quantised ({model.census.main}), and config.json does not say so; "
            "restore its quantization_config from where the model came from."
        )


def _other_method(model: Understood) -> Iterator[str]:
    said = model.configs.quant_method
    if said is None or model.quantization is None:
        return
    is_method = model.quantization.method
    if said != is_method and said not in SAME_METHOD.get(is_method, {is_method}):
        yield f"config.json claims {said}, and the tensors are {is_method}."


def _widths(model: Understood) -> Iterator[str]:
    for contradiction in model.widths.contradictions[:3]:
        yield f"config.json says {contradiction}."


def _mixture(model: Understood) -> Iterator[str]:
    """A mixture of experts under the name of its dense relative, or the reverse."""
    if not model.configs.has_config:
        return
    hf_class = next(iter(model.configs.architectures), "")
    model_type = model.configs.model_type or ""
    by_class, by_type = "moe" in hf_class.casefold(), "moe" in model_type.casefold()
    if hf_class and model_type and by_class != by_type:
        yield f"config.json names the architecture {hf_class}, and the model_type {model_type}."
    experts = expert_count(model.configs) or 0
    if model.moe and experts <= 1:
        yield "the tensors have experts, and config.json tells of none."
    if experts > 1 and not model.census.experts and model.census.linear_layers:
        yield f"config.json tells of {experts} experts, and the tensors have none."


def _layers(model: Understood) -> Iterator[str]:
    stated = model.configs.number(*LAYER_COUNTS)
    if stated and model.census.has_layer(stated - 1):
        return
    found = model.census.layer_count
    if stated and found and found < stated <= model.census.tensor_count:
        yield f"config.json tells of {stated} layers, and the tensors have {found}."


def _absurd_layers(model: Understood) -> Iterator[Problem]:
    """Fatal: engines build a network as large as the config says before they look at weights, and
    a claim of ten million layers would take all memory of the machine."""
    config, tensors = model.configs.config, model.census.tensor_count
    parts = (config, *(value for value in config.values() if isinstance(value, dict)))
    claims = [part[key] for part in parts for key in LAYER_COUNTS if key in part]
    stated = max((count for count in claims if isinstance(count, int)), default=0)
    if stated > tensors:
        yield Problem(
            "corrupt.bounds",
            f"config.json tells of {_shown(stated)} layers, and the weights have {tensors} tensors "
            "in all. Restore config.json from where the model came from.",
        )


def _shown(number: int) -> str:
    return f"{number:,}" if number < MAX_NUMBER else "more than 10¹⁵"


CHECKS: tuple[Callable[[Understood], Iterator[str]], ...] = (
    _architectures,
    _claimed_but_plain,
    _silent_but_quantized,
    _other_method,
    _widths,
    _mixture,
    _layers,
)
