from __future__ import annotations

import pytest

from backends.base import Installation, Support, Verdict
from backends.verdicts import Reason, Rule, broken, if_installed, judge, only
from detect.types import FATAL_PREFIXES, Problem, WeightFormat
from tests.fake_engine import model

MLX, GGUF = model("m", format=WeightFormat.MLX), model("g")

NOT_GGUF = Rule(
    when=lambda info: info.format is not WeightFormat.GGUF,
    code=Reason.UNSUPPORTED_FORMAT,
    reason=lambda info: f"does not read {info.format}",
    remedy=lambda info: f"convert {info.id}",
)
SLOW = Rule(
    when=lambda info: info.weights_bytes > 5,
    code=Reason.MEMORY_TOO_BIG,
    reason="is slow with it",
    support=Support.LIMITED,
)
RULES = (NOT_GGUF, SLOW)


def test_the_first_rule_that_applies_decides() -> None:
    assert judge("fake", MLX, RULES) == Verdict(
        engine="fake",
        support=Support.NO,
        code="unsupported.format",
        reason="does not read mlx",
        remedy="convert m",
    )
    assert judge("fake", MLX, RULES[::-1]).code == "memory.too_big"


def test_a_rule_may_limit_and_not_refuse() -> None:
    verdict = judge("fake", GGUF, RULES)
    assert (verdict.support, verdict.ok, verdict.remedy) == (Support.LIMITED, True, "")


def test_a_model_that_no_rule_is_about_is_a_plain_yes() -> None:
    verdict = judge("fake", model("g", weights_bytes=1), RULES)
    assert verdict == Verdict(engine="fake", support=Support.YES)


@pytest.mark.parametrize(
    "code", [reason for reason in Reason if reason.value.startswith(FATAL_PREFIXES)]
)
def test_broken_files_are_refused_before_any_rule(code: Reason) -> None:
    problems = (Problem("conflict.layout", "Odd."), Problem(code.value, "Part 2 is missing."))
    info = model("g", problems=problems)
    verdict = judge("fake", info, RULES)
    assert verdict == broken("fake", info)
    assert (verdict.ok, verdict.code, verdict.reason) == (False, code, "Part 2 is missing.")


def test_a_problem_that_is_not_fatal_is_left_to_the_rules() -> None:
    info = model("g", problems=(Problem("conflict.layout", "Odd."),), weights_bytes=1)
    assert judge("fake", info, RULES).ok


def test_rules_can_be_kept_for_some_models() -> None:
    kept = only(lambda info: info.id == "m", RULES)
    assert [rule.when(MLX) for rule in kept] == [True, True]
    assert [rule.when(GGUF) for rule in kept] == [False, False]
    assert kept[0].verdict("fake", MLX) == NOT_GGUF.verdict("fake", MLX)
    assert [rule.when(GGUF) for rule in RULES] == [False, True]


ABSENT = Installation(engine="fake", problem="fake is not installed.", remedy="pip install fake")
HERE = Installation(engine="fake", version="1")
YES = Verdict(engine="fake", support=Support.YES)
NO = Verdict(engine="fake", support=Support.NO, code="unsupported.arch", reason="does not know it")


def test_an_engine_that_is_here_gives_its_own_verdict() -> None:
    assert if_installed(HERE, YES) is YES
    assert if_installed(HERE, NO) is NO


def test_an_engine_that_is_not_here_says_how_to_install_it() -> None:
    assert if_installed(ABSENT, YES) == Verdict(
        engine="fake",
        support=Support.NO,
        code="backend.absent",
        reason="fake is not installed",
        remedy="pip install fake",
    )


def test_installing_is_not_advised_where_it_would_not_help() -> None:
    assert if_installed(ABSENT, NO) is NO
