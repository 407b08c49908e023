from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from backends.mlx.waiting_texts import MAX_TOGETHER, MOST_PADDING, WaitingTexts


@dataclass(frozen=True, eq=False)
class Text:
    length: int
    request: int = 0


LENGTHS = st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=12), max_size=8)


def waiting(requests: list[list[int]]) -> WaitingTexts[Text]:
    found = WaitingTexts[Text]()
    for number, lengths in enumerate(requests):
        found.put([Text(length, number) for length in lengths])
    return found


def test_texts_of_about_one_length_go_together_whoever_asked() -> None:
    texts = waiting([[10, 100], [90, 11, 20]])
    assert [text.length for text in texts.take(200)] == [100, 90]
    assert [text.length for text in texts.take(200)] == [20, 11, 10]
    assert not len(texts)


def test_a_long_one_goes_alone() -> None:
    assert [text.length for text in waiting([[500, 499], [500]]).take(400)] == [500]


@given(requests=LENGTHS, tokens=st.integers(1, 1000))
def test_every_text_is_taken_once_and_no_batch_is_larger_than_allowed(
    requests: list[list[int]], tokens: int
) -> None:
    texts = waiting(requests)
    expected = {id(text) for text in texts}
    taken: list[Text] = []
    while len(texts):
        batch = texts.take(tokens)
        longest = batch[0].length
        assert len(batch) == 1 or longest * len(batch) <= tokens
        assert len(batch) <= MAX_TOGETHER
        assert all(longest / MOST_PADDING <= text.length <= longest for text in batch)
        taken += batch
    assert sorted(map(id, taken)) == sorted(expected)


@given(requests=LENGTHS, tokens=st.integers(1, 1000))
def test_nobody_waits_for_more_than_one_turn_of_each_other_request(
    requests: list[list[int]], tokens: int
) -> None:
    texts = waiting([*requests, [7]])
    last, turns = len(requests), 0
    while any(text.request == last for text in texts):
        texts.take(tokens)
        turns += 1
    assert turns <= len(requests) + 1


def test_those_of_one_who_left_are_dropped() -> None:
    texts = waiting([[1, 2], [3]])
    texts.drop([text for text in texts if text.request == 0])
    assert [text.length for text in texts] == [3]
    assert [text.length for text in texts.take(10)] == [3]
