from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import BadRequestError
from backends.wire.embeddings import MAX_INPUTS, EmbeddingRequest, Embeddings, answer, parse


def of(**fields: Any) -> EmbeddingRequest:
    return parse(json.dumps({"model": "m", **fields}).encode())


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("a", ("a",)), (["a", ""], ("a", "")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_input_is_text_or_token_ids_or_several_of_either(given: Any, inputs: Any) -> None:
    assert of(input=given) == EmbeddingRequest(inputs=inputs)


def test_what_else_may_be_asked_for() -> None:
    found = of(input="a", dimensions=8, encoding_format="base64", prompt_name="query", user="me")
    assert (found.dimensions, found.base64, found.prompt_name) == (8, True, "query")
    assert of(input="a", dimensions=None, encoding_format=None).base64 is False


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": {"text": "a"}}, "input"),
    ({"input": []}, "input"),
    ({"input": [[]]}, "input[0]"),
    ({"input": ["a", 1]}, "input[1]"),
    ({"input": ["a", [1]]}, "input[1]"),
    ({"input": [None]}, "input[0]"),
    ({"input": [1, "a"]}, "input[1]"),
    ({"input": [1, True]}, "input[1]"),
    ({"input": [[1], [1.5]]}, "input[1][0]"),
    ({"input": ["a"] * (MAX_INPUTS + 1)}, "input"),
    ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": "8"}, "dimensions"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "encoding_format": []}, "encoding_format"),
    ({"input": "a", "prompt_name": 1}, "prompt_name"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[str(w)[:40] for w, _ in WRONG])
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        of(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"[]", b'{"input": NaN}', b'{"input": "\\ud800"}'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse(body)


@given(vector=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=9))
def test_vectors_arrive_as_they_are_in_both_formats(vector: list[float]) -> None:
    raw = struct.pack(f"<{len(vector)}f", *vector)
    found = Embeddings([raw, raw], 7)
    floats = json.loads(answer(EmbeddingRequest(inputs=("a", "b")), 'm"', found))
    assert floats["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (floats["object"], floats["model"]) == ("list", 'm"')
    for index, item in enumerate(floats["data"]):
        assert (item["object"], item["index"]) == ("embedding", index)
        form = f"<{len(vector)}f"
        assert list(struct.unpack(form, struct.pack(form, *item["embedding"]))) == vector
    packed = json.loads(answer(EmbeddingRequest(inputs=("a", "b"), base64=True), "m", found))
    assert [base64.b64decode(item["embedding"]) for item in packed["data"]] == [raw, raw]
