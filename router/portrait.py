"""One model as a text for terminals: facts, verdicts, evidence, and what follows. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from backends.base import Verdict
from router import explain
from router.entry import ModelEntry
from router.table import printable, table, wrap

ANSWERS = {"yes": "yes", "limited": "with limits", "no": "no"}


def portrait(entry: ModelEntry, memory: Mapping[str, int] | None, width: int) -> str:
    parts = [table(("", ""), _facts(entry, memory)).lstrip("\n ")]
    if not entry.info.broken:
        rows = [_verdict_row(verdict) for verdict in entry.verdicts]
        parts.append(table(("ENGINE", "RUNS IT", "WHY"), rows, width))
    if entry.info.evidence:
        evidence = [(e.field, e.value, e.source) for e in entry.info.evidence]
        parts.append(table(("EVIDENCE", "VALUE", "SOURCE"), evidence, width))
    problems = [p for p in entry.info.problems if p is not entry.info.fatal_problem]
    parts += [_wrapped(f"Problem: {p.message} [{p.code}]", width) for p in problems]
    parts.append(_wrapped(explain.sentence(entry.info, entry.verdicts), width))
    if entry.choice.engine is not None:
        chosen = f"It will be served by {entry.choice.engine} ({entry.choice.why})."
        parts.append(_wrapped(chosen, width))
    return "\n\n".join(parts)


def _facts(entry: ModelEntry, memory: Mapping[str, int] | None) -> list[tuple[str, str]]:
    info = entry.info
    context = f"{info.context_length} tokens" if info.context_length else "not stated"
    if info.extended_context_length:
        context += f", {info.extended_context_length} extended"
    rows = [
        ("model", entry.id),
        ("path", str(info.path)),
        *(("adapter", str(folder)) for folder in (entry.adapter,) if folder),
        *(("draft", str(folder)) for folder in (entry.draft,) if folder),
        ("format", info.format.value),
        ("quantisation", explain.quantization(info)),
        ("architecture", info.architecture.name or "unknown"),
        ("role", info.role.value),
        ("parameters", explain.parameters(info.parameters)),
        ("weights", explain.size(info.weights_bytes)),
        ("context", context),
        ("chat template", _yes(info.chat_template) + (", with tools" if info.tools else "")),
    ]
    if memory is not None:
        rows.append(("memory", _memory(memory)))
    return rows


def _memory(memory: Mapping[str, int]) -> str:
    size = explain.size
    needed, budget, estimate = memory["needed"], memory["budget"], memory["total"]
    parts = ", ".join(f"{name} {size(memory[name])}" for name in ("weights", "kv", "overhead"))
    text = f"about {size(estimate)} when loaded ({parts})"
    if needed != estimate:
        text = f"{size(needed)} when it was loaded last; estimated were {size(estimate)} ({parts})"
    if needed > budget:
        text += f"; all models may take {size(budget)}: {size(needed - budget)} too much"
    return text


def _verdict_row(verdict: Verdict) -> tuple[str, str, str]:
    code = f" [{verdict.code}]" if verdict.code else ""
    remedy = f" {verdict.remedy}" if verdict.remedy else ""
    return verdict.engine, ANSWERS[verdict.support.value], f"{verdict.reason}{code}{remedy}".strip()


def _wrapped(text: str, width: int) -> str:
    return "\n".join(wrap(printable(text), width))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
