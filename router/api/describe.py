"""A model as JSON, the same for `router inspect --json` and for HTTP. Pure."""

from __future__ import annotations

from typing import Any

from backends.base import Verdict
from detect.types import ModelInfo, Quantization, Skipped
from router.entry import ModelEntry


def entry(model: ModelEntry) -> dict[str, Any]:
    return {
        **_info(model.info),
        "verdicts": [_verdict(verdict) for verdict in model.verdicts],
        "engine": model.choice.engine,
        "engine_reason": model.choice.why,
        "adapter": str(model.adapter) if model.adapter else None,
        "draft": str(model.draft) if model.draft else None,
        "evidence": [
            {"field": e.field, "value": e.value, "source": e.source} for e in model.info.evidence
        ],
    }


def skipped(item: Skipped) -> dict[str, Any]:
    return {"path": str(item.path), "code": item.code, "reason": item.reason}


def _info(info: ModelInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "path": str(info.path),
        "aliases": list(info.aliases),
        "format": info.format.value,
        "quantization": _quantization(info.quantization),
        "architecture": info.architecture.name,
        "parameters": info.parameters,
        "active_parameters": info.active_parameters,
        "weights_bytes": info.weights_bytes,
        "context_length": info.context_length,
        "extended_context_length": info.extended_context_length,
        "kv_bytes_per_token": info.kv_bytes_per_token,
        "role": info.role.value,
        "chat_template": info.chat_template,
        "tools": info.tools,
        "thinking": info.thinking,
        "mmproj": str(info.mmproj) if info.mmproj else None,
        "problems": [{"code": p.code, "message": p.message} for p in info.problems],
    }


def _quantization(quantization: Quantization | None) -> dict[str, Any] | None:
    if quantization is None:
        return None
    return {
        "method": quantization.method,
        "bits": quantization.bits,
        "group_size": quantization.group_size,
        "mode": quantization.mode,
        "mixed": quantization.mixed,
        "label": quantization.label,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "engine": verdict.engine,
        "ok": verdict.ok,
        "support": verdict.support.value,
        "code": verdict.code,
        "reason": verdict.reason,
        "remedy": verdict.remedy,
    }
