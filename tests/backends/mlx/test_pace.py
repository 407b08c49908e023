from __future__ import annotations

from backends.mlx.pace import FIRST_TOKENS, MAX_TOKENS, MIN_TOKENS, Pace


def test_before_anything_is_known_a_step_is_small() -> None:
    assert Pace().tokens(shared=True) == Pace().tokens(shared=False) == FIRST_TOKENS


def test_a_step_beside_others_is_shorter_than_one_alone() -> None:
    pace = Pace()
    pace.took(1000, 1.0)
    assert pace.tokens(shared=True) == 100
    assert pace.tokens(shared=False) == 500


def test_a_step_is_never_tiny_and_never_huge() -> None:
    slow, fast = Pace(), Pace()
    slow.took(100, 1000.0)
    fast.took(1000, 0.001)
    assert slow.tokens(shared=True) == MIN_TOKENS
    assert fast.tokens(shared=False) == MAX_TOKENS


def test_the_pace_follows_what_steps_take_and_ignores_the_tiny_ones() -> None:
    pace = Pace()
    pace.took(1000, 1.0)
    for _ in range(20):
        pace.took(1000, 2.0)
    assert 250 <= pace.tokens(shared=False) < 260
    pace.took(1, 1.0)
    assert 250 <= pace.tokens(shared=False) < 260
