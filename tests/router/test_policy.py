from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.policy import Plan, Resident, make_room, relieve


def resident(key: str, size: int, *, leased: bool = False, used: float = 0.0) -> Resident:
    return Resident(key=key, reserved_bytes=size, leased=leased, idle_seconds=10 - used)


def test_memory_on_its_way_needs_no_victim() -> None:
    assert make_room(5, 5, [resident("a", 10)]) == Plan()


def test_the_least_recently_used_idle_instance_goes_first() -> None:
    residents = [resident("new", 10, used=9), resident("old", 10, used=1)]
    assert make_room(10, 0, residents) == Plan(evict=("old",))


def test_one_that_takes_long_to_load_may_be_idle_for_longer() -> None:
    big = Resident(key="big", reserved_bytes=10, leased=False, idle_seconds=60, load_seconds=20)
    small = Resident(key="small", reserved_bytes=10, leased=False, idle_seconds=30, load_seconds=1)
    assert make_room(10, 0, [big, small]) == Plan(evict=("small",))


def test_relief_takes_what_is_idle_even_where_it_is_not_enough() -> None:
    residents = [resident("busy", 10, leased=True), resident("idle", 10), resident("old", 10)]
    assert relieve(5, residents) == ("idle",)
    assert relieve(50, residents) == ("idle", "old")


def test_a_busy_instance_is_claimed_only_when_the_idle_ones_are_not_enough() -> None:
    residents = [resident("busy", 10, leased=True, used=0), resident("idle", 10, used=5)]
    assert make_room(10, 0, residents) == Plan(evict=("idle",))
    assert make_room(20, 0, residents) == Plan(evict=("idle",), claim=("busy",))


def test_a_need_that_nothing_can_meet_has_no_plan() -> None:
    assert make_room(100, 10, [resident("a", 10)]) is None


residents_strategy = st.lists(
    st.builds(
        Resident,
        key=st.text(min_size=1, max_size=4),
        reserved_bytes=st.integers(0, 50),
        leased=st.booleans(),
        idle_seconds=st.floats(0, 100),
        load_seconds=st.floats(0, 100),
    ),
    unique_by=lambda r: r.key,
    max_size=8,
)


@given(st.integers(0, 200), st.integers(0, 50), residents_strategy)
def test_a_plan_frees_enough_and_evicts_no_busy_instance(
    needed: int, free: int, residents: list[Resident]
) -> None:
    plan = make_room(needed, free, residents)
    by_key = {r.key: r for r in residents}
    if plan is None:
        assert free + sum(r.reserved_bytes for r in residents) < needed
        return
    chosen = [by_key[key] for key in (*plan.evict, *plan.claim)]
    assert free + sum(r.reserved_bytes for r in chosen) >= needed
    assert not any(by_key[key].leased for key in plan.evict)
    assert all(by_key[key].leased for key in plan.claim)
    if plan.claim:
        assert set(plan.evict) == {r.key for r in residents if not r.leased}
