"""The vocabulary of verdicts: stable reason codes, and rules as data.

An engine's compatibility table is a tuple of `Rule`s, asked in order; the first that applies
decides. Each rule carries the code, the clause that completes "<engine>: …" and the remedy, so
that a table reads like the documentation and every row is testable on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from backends.base import Installation, Support, Verdict
from detect.types import ModelInfo


class Reason(StrEnum):
    """Codes that programs may rely on; they are never renamed. `docs/formats.md` explains each."""

    INCOMPLETE_LFS_POINTER = "incomplete.lfs_pointer"
    INCOMPLETE_PARTIAL = "incomplete.partial"
    INCOMPLETE_MISSING_SHARD = "incomplete.missing_shard"
    INCOMPLETE_TRUNCATED = "incomplete.truncated"
    CORRUPT_HEADER = "corrupt.header"
    CORRUPT_BOUNDS = "corrupt.bounds"
    CORRUPT_INDEX_MISMATCH = "corrupt.index_mismatch"
    UNSUPPORTED_GGUF_VERSION = "unsupported.gguf_version"
    UNSUPPORTED_ENDIANNESS = "unsupported.endianness"
    UNSUPPORTED_GGUF_TYPE = "unsupported.gguf_type"
    UNSUPPORTED_FORMAT = "unsupported.format"
    UNSUPPORTED_QUANT = "unsupported.quant"
    UNSUPPORTED_QUANT_ON_PLATFORM = "unsupported.quant_on_platform"
    UNSUPPORTED_ARCH = "unsupported.arch"
    UNSUPPORTED_ROLE = "unsupported.role"
    MISSING_CONFIG = "missing.config"
    MISSING_TOKENIZER = "missing.tokenizer"
    MISSING_MMPROJ = "missing.mmproj"
    MISSING_BASE_MODEL = "missing.base_model"
    CONFLICT_CONFIG_VS_TENSORS = "conflict.config_vs_tensors"
    CONFLICT_LAYOUT = "conflict.layout"
    UNSAFE_PICKLE = "unsafe.pickle"
    UNSAFE_REMOTE_CODE = "unsafe.remote_code"
    BACKEND_ABSENT = "backend.absent"
    BACKEND_TOO_OLD = "backend.too_old"
    REFUSED_AT_LOAD = "refused.at_load"
    MEMORY_TOO_BIG = "memory.too_big"
    SETTLING = "settling"


Clause = str | Callable[[ModelInfo], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of an engine's table: `when` it applies, what follows.

    `reason` and `remedy` are clauses, or functions of the model where they name its details.
    """

    when: Callable[[ModelInfo], bool]
    code: Reason
    reason: Clause
    remedy: Clause = ""
    support: Support = Support.NO

    def verdict(self, engine: str, info: ModelInfo) -> Verdict:
        return Verdict(
            engine=engine,
            support=self.support,
            code=self.code.value,
            reason=_text(self.reason, info),
            remedy=_text(self.remedy, info),
        )


def only(condition: Callable[[ModelInfo], bool], rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """These rules, asked about the models that fulfil `condition` only."""

    def both(when: Callable[[ModelInfo], bool]) -> Callable[[ModelInfo], bool]:
        return lambda info: condition(info) and when(info)

    return tuple(replace(rule, when=both(rule.when)) for rule in rules)


def judge(engine: str, info: ModelInfo, rules: Sequence[Rule]) -> Verdict:
    """The first rule that applies, else a plain yes. Broken files are refused for every engine."""
    if info.broken:
        return broken(engine, info)
    for rule in rules:
        if rule.when(info):
            return rule.verdict(engine, info)
    return Verdict(engine=engine, support=Support.YES)


def broken(engine: str, info: ModelInfo) -> Verdict:
    problem = info.fatal_problem
    assert problem is not None
    return Verdict(engine=engine, support=Support.NO, code=problem.code, reason=problem.message)


def _text(clause: Clause, info: ModelInfo) -> str:
    return clause if isinstance(clause, str) else clause(info)


def if_installed(installation: Installation, verdict: Verdict) -> Verdict:
    """`verdict`, unless the engine that could run the model is not usable here.

    A model that the engine could not run anyway keeps that reason: installing would not help.
    """
    if installation.usable or not verdict.ok:
        return verdict
    return Verdict(
        engine=verdict.engine,
        support=Support.NO,
        code=Reason.BACKEND_ABSENT.value,
        reason=installation.problem.removesuffix("."),
        remedy=installation.remedy,
    )
