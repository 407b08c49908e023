from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.mlx.prefix_cache import Entry, PrefixCache, common_prefix, pack, unpack

Ids = st.lists(st.integers(0, 3), max_size=12)


def entry(*ids: int, nbytes: int = 1, trimmable: bool = True) -> Entry:
    return Entry(pack(ids), None, nbytes, trimmable)


@given(Ids, Ids)
def test_the_common_prefix_is_what_a_plain_loop_finds(a: list[int], b: list[int]) -> None:
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert common_prefix(pack(a), pack(b)) == expected


@given(st.lists(st.integers(0, 2**31 - 1)))
def test_packed_ids_come_back(ids: list[int]) -> None:
    assert unpack(pack(ids)) == ids


@given(st.lists(st.tuples(Ids, st.booleans(), st.integers(1, 5)), max_size=12), Ids)
def test_a_hit_is_the_longest_there_is_and_the_bytes_stay_bounded(
    kept: list[tuple[list[int], bool, int]], prompt: list[int]
) -> None:
    cache = PrefixCache(max_bytes=12)
    for ids, trimmable, nbytes in kept:
        cache.keep(entry(*ids, nbytes=nbytes, trimmable=trimmable))
        assert cache.nbytes == sum(e.nbytes for e in cache) <= 12
    lengths = []
    for e in cache:
        common = common_prefix(e.tokens, pack(prompt))
        whole = common if common == e.length else 0
        lengths.append(min(common, len(prompt) - 1) if e.trimmable else whole)
    possible = [length for length in lengths if 0 < length < len(prompt)]
    hit = cache.fetch(prompt) if prompt else None
    assert (hit.length if hit else 0) == max(possible, default=0)


def test_a_prompt_that_is_all_known_leaves_its_last_token_to_compute() -> None:
    cache = PrefixCache(max_bytes=10)
    cache.keep(entry(1, 2, 3))
    hit = cache.fetch([1, 2, 3])
    assert hit is not None
    assert hit.length == 2


def test_a_state_that_cannot_be_trimmed_serves_whole_or_not_at_all() -> None:
    cache = PrefixCache(max_bytes=10)
    cache.keep(entry(1, 2, 3, trimmable=False))
    assert cache.fetch([1, 2, 4, 5]) is None
    assert cache.fetch([1, 2, 3]) is None
    hit = cache.fetch([1, 2, 3, 4])
    assert hit is not None
    assert hit.length == 3


def test_a_longer_one_that_can_be_trimmed_replaces_its_beginnings() -> None:
    cache = PrefixCache(max_bytes=10)
    for ids in ([1], [1, 2], [1, 3], [1, 2, 3]):
        cache.keep(entry(*ids))
    assert [unpack(e.tokens) for e in cache] == [[1, 3], [1, 2, 3]]
    assert cache.keep(entry(1, 2)) == []
    assert len(cache) == 2


def test_the_one_that_was_of_use_the_longest_time_ago_leaves() -> None:
    cache = PrefixCache(max_bytes=3)
    for first in (1, 2, 3):
        cache.keep(entry(first, first))
    cache.fetch([1, 1, 1])
    evicted = cache.keep(entry(4, 4))
    assert [unpack(e.tokens) for e in evicted] == [[2, 2]]
    assert cache.counters.evicted == 1


def test_what_many_conversations_begin_with_stays_while_they_pass_it() -> None:
    cache = PrefixCache(max_bytes=3)
    cache.keep(entry(7, trimmable=False))
    for turn in range(1, 9):
        ids = (7, *range(turn))
        cache.keep(entry(*ids, trimmable=False))
        cache.fetch([*ids, 99])
    assert cache.fetch([7, 50]) is not None


def test_one_that_is_too_large_is_not_taken_and_drives_nobody_out() -> None:
    cache = PrefixCache(max_bytes=3)
    cache.keep(entry(1))
    assert cache.keep(entry(2, nbytes=4)) == []
    assert [unpack(e.tokens) for e in cache] == [[1]]


def test_hits_and_misses_are_counted_in_tokens() -> None:
    cache = PrefixCache(max_bytes=3)
    cache.keep(entry(1, 2, 3))
    cache.fetch([1, 2, 3, 4])
    cache.fetch([5, 5])
    counted = cache.counters
    assert (counted.hits, counted.misses) == (1, 1)
    assert (counted.cached_tokens, counted.prompt_tokens) == (3, 6)
