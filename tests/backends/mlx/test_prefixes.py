"""Every kind of state, on real networks of random weights: what comes from the cache is what would
have been computed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from backends.mlx import kv_state, library
from backends.mlx.batch import BatchDecoder
from backends.mlx.decoder import Decoder, RowRequest, Token
from backends.mlx.decoders import make_decoder
from backends.mlx.disk_shelf import DiskShelf
from backends.mlx.model import Weights
from backends.mlx.prefix_cache import pack as packed
from backends.mlx.prefixes import Prefixes
from backends.mlx.sequential import SequentialDecoder
from tests.truth import networks

DENSE = ("llama", "qwen3_moe", "deepseek_v3")
SLIDING = ("gemma3_text", "gpt_oss")
"""Their windows hold 64 tokens: shorter prompts can be trimmed, longer ones cannot."""
RECURRENT = ("lfm2", "granitemoehybrid", "falcon_h1", "qwen3_next")
"""Cannot be trimmed at all."""

Make = Callable[[Any, Prefixes], Decoder]


def batched(network: Any, prefixes: Prefixes) -> Decoder:
    return BatchDecoder(network, frozenset(), 4, prefixes)


def sequential(network: Any, prefixes: Prefixes) -> Decoder:
    return SequentialDecoder(network, frozenset(), prefixes)


makes = pytest.mark.parametrize("make", [batched, sequential])
everything = pytest.mark.parametrize("architecture", [*DENSE, *SLIDING, *RECURRENT])


@cache
def network(architecture: str) -> Any:
    return networks.network(networks.config(architecture), "float32")


def ids(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(10, 300), k=count)


def asking(prompt: Sequence[int], *checkpoints: int, tokens: int = 8) -> RowRequest:
    greedy = library.load("mlx_lm.sample_utils").make_sampler(temp=0.0)
    return RowRequest(
        prompt=prompt, max_tokens=tokens, sampler=greedy, checkpoints=sorted(checkpoints)
    )


def finish(decoder: Decoder) -> dict[int, list[Token]]:
    said: dict[int, list[Token]] = {}
    while len(decoder):
        for token in decoder.step():
            said.setdefault(token.row, []).append(token)
    decoder._prefixes.settle()  # type: ignore[attr-defined]
    return said


def answer(decoder: Decoder, request: RowRequest) -> tuple[list[int], int]:
    """Ids, and how many tokens of the prompt came from the cache."""
    row = decoder.insert(request)
    tokens = finish(decoder)[row]
    return [token.id for token in tokens], tokens[0].cached


def fresh(architecture: str, prompt: Sequence[int], tokens: int = 8) -> list[int]:
    said, cached = answer(
        batched(network(architecture), Prefixes(0)), asking(prompt, tokens=tokens)
    )
    assert cached == 0
    return said


@makes
@everything
def test_a_conversation_goes_on_from_its_last_answer(architecture: str, make: Make) -> None:
    decoder = make(network(architecture), Prefixes(2**30))
    prompt = ids(1, 150)
    for turn in range(3):
        said, cached = answer(decoder, asking(prompt))
        assert said == fresh(architecture, prompt)
        assert cached == (len(prompt) - 20 if turn else 0)
        prompt = [*prompt, *said, *ids(turn + 2, 20)]


@makes
@pytest.mark.parametrize("architecture", [*SLIDING, *RECURRENT])
def test_another_ending_goes_on_from_the_checkpoint(architecture: str, make: Make) -> None:
    decoder = make(network(architecture), Prefixes(2**30))
    head = ids(1, 120)
    answer(decoder, asking([*head, *ids(2, 30)], 100, 120))
    prompt = [*head, *ids(3, 30)]
    said, cached = answer(decoder, asking(prompt))
    assert cached == 120
    assert said == fresh(architecture, prompt)


@makes
@pytest.mark.parametrize("architecture", DENSE)
def test_another_ending_goes_on_from_where_they_part(architecture: str, make: Make) -> None:
    decoder = make(network(architecture), Prefixes(2**30))
    head = ids(1, 120)
    answer(decoder, asking([*head, 5, *ids(2, 30)]))
    prompt = [*head, 6, *ids(3, 30)]
    said, cached = answer(decoder, asking(prompt))
    assert cached == 120
    assert said == fresh(architecture, prompt)
    # And the one whose state was trimmed for it is as it was.
    again = [*head, 5, *ids(2, 30)]
    said, cached = answer(decoder, asking(again))
    assert cached == len(again) - 1
    assert said == fresh(architecture, again)


@makes
@everything
def test_the_prompt_that_is_exactly_what_was_kept(architecture: str, make: Make) -> None:
    """A prompt and its whole answer, sent again: the case that ends `mlx_lm.server` for good."""
    decoder = make(network(architecture), Prefixes(2**30))
    prompt = ids(1, 90)
    said, _ = answer(decoder, asking(prompt, 89))
    whole = [*prompt, *said]
    assert answer(decoder, asking(whole))[0] == fresh(architecture, whole)
    again, cached = answer(decoder, asking(prompt))
    assert (again, cached) == (said, 89)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "lfm2", "qwen3_next"])
def test_rows_that_begin_differently_share_a_batch(architecture: str) -> None:
    decoder = batched(network(architecture), Prefixes(2**30))
    heads = [ids(seed, 80 + 10 * seed) for seed in range(3)]
    for head in heads:
        answer(decoder, asking(head, len(head) - 1))
    prompts = [*([*head[:-1], *ids(9, 15)] for head in heads), ids(7, 40)]
    rows = [decoder.insert(asking(prompt)) for prompt in prompts]
    said = finish(decoder)
    for row, prompt in zip(rows, prompts, strict=True):
        assert [token.id for token in said[row]] == fresh(architecture, prompt)
    assert [said[row][0].cached for row in rows] == [79, 89, 99, 0]


@pytest.mark.parametrize("architecture", ["llama", "lfm2"])
def test_what_several_have_in_common_is_computed_once(architecture: str) -> None:
    decoder = batched(network(architecture), Prefixes(2**30))
    head = ids(1, 600)
    prompts = [[*head, *ids(seed, 10)] for seed in range(3)]
    rows = [decoder.insert(asking(prompt, 600)) for prompt in prompts]
    said = finish(decoder)
    assert [said[row][0].cached for row in rows] == [0, 600, 600]
    for row, prompt in zip(rows, prompts, strict=True):
        assert [token.id for token in said[row]] == fresh(architecture, prompt)


@makes
def test_who_leaves_in_the_middle_finds_the_prompt_again(make: Make) -> None:
    decoder = make(network("llama"), Prefixes(2**30))
    prompt = ids(1, 400)
    row = decoder.insert(asking(prompt, tokens=100))
    while not decoder.step():
        pass
    decoder.remove(row)
    assert len(decoder) == 0
    said, cached = answer(decoder, asking(prompt))
    assert cached == 399
    assert said == fresh("llama", prompt)


@makes
def test_who_leaves_while_the_prompt_is_read_finds_what_was_read(make: Make) -> None:
    decoder = make(network("llama"), Prefixes(2**30))
    prompt = ids(1, 400)
    row = decoder.insert(asking(prompt))
    decoder.step()
    decoder.remove(row)
    said, cached = answer(decoder, asking(prompt))
    assert 0 < cached < 399
    assert said == fresh("llama", prompt)


@pytest.mark.parametrize("architecture", ["llama", "lfm2", "gemma3_text"])
def test_what_is_kept_shares_no_memory_with_the_batch(architecture: str) -> None:
    mx = library.load("mlx.core")
    prefixes = Prefixes(2**30)
    decoder = batched(network(architecture), prefixes)
    fresh(architecture, ids(9, 40))
    library.load("backends.mlx.model").give_back_memory()
    before = mx.get_active_memory()
    for seed in range(4):
        decoder.insert(asking(ids(seed, 300)))
    finish(decoder)
    decoder.close()
    library.load("backends.mlx.model").give_back_memory()
    assert len(prefixes) == 4
    assert mx.get_active_memory() - before <= prefixes.nbytes * 1.1 + 2**16
    prefixes.clear()


@everything
def test_states_survive_a_restart_on_disk(architecture: str, tmp_path: Path) -> None:
    prompt = ids(1, 150)
    prefixes = Prefixes(2**30, DiskShelf(tmp_path, 2**30))
    said, _ = answer(batched(network(architecture), prefixes), asking(prompt, 149))
    while prefixes.save_one():
        pass
    later = Prefixes(2**30, DiskShelf(tmp_path, 2**30))
    decoder = batched(network(architecture), later)
    again, cached = answer(decoder, asking(prompt))
    assert (again, cached) == (said, 149)
    longer = [*prompt, *said, *ids(2, 20)]
    again, cached = answer(decoder, asking(longer))
    assert cached == 158
    assert again == fresh(architecture, longer)


def test_what_leaves_the_memory_is_found_on_disk(tmp_path: Path) -> None:
    size = kept_bytes("llama", 150)
    prefixes = Prefixes(int(size * 1.5), DiskShelf(tmp_path, 2**30))
    decoder = batched(network("llama"), prefixes)
    prompts = [ids(seed, 150) for seed in range(3)]
    for prompt in prompts:
        answer(decoder, asking(prompt))
    assert len(prefixes) == 1
    for prompt in prompts:
        said, cached = answer(decoder, asking(prompt))
        assert cached == 149
        assert said == fresh("llama", prompt)


def test_the_disk_holds_what_it_may_and_the_longest_unused_leaves(tmp_path: Path) -> None:
    size = kept_bytes("llama", 150)
    shelf = DiskShelf(tmp_path, int(size * 2.5))
    prefixes = Prefixes(2**30, shelf)
    decoder = batched(network("llama"), prefixes)
    for seed in range(4):
        answer(decoder, asking(ids(seed, 150)))
        while prefixes.save_one():
            pass
    assert shelf.nbytes <= size * 2.5
    assert len(list(tmp_path.glob("*.tokens"))) == len(list(tmp_path.glob("*.safetensors"))) == 2
    again = DiskShelf(tmp_path, 2**30)
    assert [again.usable(packed(ids(seed, 150))) for seed in range(4)] == [0, 0, 149, 149]


def test_damage_on_the_disk_costs_the_saved_state_only(tmp_path: Path) -> None:
    prompt = ids(1, 150)
    prefixes = Prefixes(2**30, DiskShelf(tmp_path, 2**30))
    said, _ = answer(batched(network("llama"), prefixes), asking(prompt))
    prefixes.save_one()
    (state,) = tmp_path.glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:500])
    (tmp_path / "x.partial.safetensors").write_bytes(b"half")
    (tmp_path / "y.safetensors").write_bytes(b"without tokens")
    decoder = batched(network("llama"), Prefixes(2**30, DiskShelf(tmp_path, 2**30)))
    assert answer(decoder, asking(prompt)) == (said, 0)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    prefixes = Prefixes(2**30, DiskShelf(tmp_path / "states", 2**30))
    answer(batched(network("llama"), prefixes), asking(ids(1, 150)))
    (tmp_path / "states").rmdir()
    assert prefixes.save_one()
    assert not prefixes.save_one()


@pytest.mark.parametrize("architecture", [*DENSE, *SLIDING, *RECURRENT])
def test_which_states_can_be_trimmed_at_any_length(architecture: str) -> None:
    state = kv_state.new(network(architecture))
    assert kv_state.keeps_all(state) == (architecture in DENSE)
    assert isinstance(
        make_decoder(Weights(network(architecture), 0), frozenset(), 4, Prefixes(0)), BatchDecoder
    )


def drafted(network_: Any, prefixes: Prefixes) -> Decoder:
    draft = networks.network(networks.config("llama", num_hidden_layers=1), "float32")
    return SequentialDecoder(network_, frozenset(), prefixes, draft=draft)


def guessed_well(network_: Any, prefixes: Prefixes) -> Decoder:
    """The draft is the network itself: every guess is accepted."""
    return SequentialDecoder(network_, frozenset(), prefixes, draft=network_)


@pytest.mark.parametrize("make", [drafted, guessed_well])
def test_a_draft_changes_nothing_but_the_time(make: Make) -> None:
    decoder = make(network("llama"), Prefixes(2**30))
    prompt = ids(1, 150)
    for turn in range(3):
        said, cached = answer(decoder, asking(prompt, tokens=12))
        assert said == fresh("llama", prompt, tokens=12)
        # The draft may not have read the last ones.
        assert not turn or len(prompt) - 24 <= cached < len(prompt)
        prompt = [*prompt, *said, *ids(turn + 2, 20)]


def test_a_draft_that_is_left_in_the_middle_leaves_a_good_state() -> None:
    for tokens in range(1, 8):
        decoder = guessed_well(network("llama"), Prefixes(2**30))
        prompt = ids(1, 60)
        row = decoder.insert(asking(prompt, tokens=50))
        said: list[int] = []
        while len(said) < tokens:
            said += [token.id for token in decoder.step()]
        decoder.remove(row)
        longer = [*prompt, *said, *ids(2, 20)]
        again, cached = answer(decoder, asking(longer))
        assert cached >= len(prompt) - 1
        assert again == fresh("llama", longer)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("architecture", ["llama", "lfm2"])
def test_keys_and_values_can_be_held_with_fewer_bits(architecture: str, bits: int) -> None:
    plain, small = Prefixes(2**30), Prefixes(2**30)
    prompt = ids(1, 256)
    answer(batched(network(architecture), plain), asking(prompt))
    decoder = make_decoder(Weights(network(architecture), 0), frozenset(), 4, small, kv_bits=bits)
    said, _ = answer(decoder, asking(prompt, 200))
    assert len(said) == 8
    assert small.nbytes < plain.nbytes * (0.8 if architecture == "llama" else 1.2)
    again, cached = answer(decoder, asking([*prompt, *said, *ids(2, 20)]))
    assert cached == 264
    assert len(again) == 8


@pytest.mark.parametrize("architecture", SLIDING)
def test_what_cannot_be_held_with_fewer_bits_is_refused(architecture: str) -> None:
    with pytest.raises(ValueError, match="kv-bits"):
        make_decoder(Weights(network(architecture), 0), frozenset(), 4, Prefixes(0), kv_bits=8)


@pytest.mark.parametrize("architecture", [*SLIDING, *RECURRENT])
def test_a_draft_needs_a_state_that_can_be_trimmed(architecture: str) -> None:
    weights = Weights(network(architecture), 0, network("llama"))
    with pytest.raises(ValueError, match="draft"):
        make_decoder(weights, frozenset(), 4, Prefixes(0))


def kept_bytes(architecture: str, count: int) -> int:
    prefixes = Prefixes(2**30)
    answer(batched(network(architecture), prefixes), asking(ids(1, count)))
    return prefixes.nbytes
