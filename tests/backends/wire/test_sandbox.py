from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from backends.wire import sandbox
from backends.wire.sandbox import render

MANY = "range(99999)"

ENDLESS = {
    "loops": f"{{% for a in {MANY} %}}{{% for b in {MANY} %}}{{% endfor %}}{{% endfor %}}",
    "passed over": f"{{% for a in {MANY} %}}{{% for b in {MANY} if false %}}{{% endfor %}}"
    "{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "nested": "{% for x in [1] recursive %}{{ loop([1, 1]) if loop.depth < 60 }}{% endfor %}",
}

TWICE = "{%% set all = namespace(x=%s) %%}{%% for i in range(60) %%}%s{%% endfor %%}"

EXPLOSIVE = {
    "a text": "{{ 'a' * 10**9 }}",
    "a text from the left": "{{ 10**9 * 'a' }}",
    "a list": "{{ [0] * 10**9 }}",
    "a power": "{{ 10 ** (10 ** 9) }}",
    "squares": TWICE % ("3", "{% set all.x = all.x * all.x %}"),
    "a sum": TWICE % ("'a'", "{% set all.x = all.x + all.x %}"),
    "a sum of lists": TWICE % ("[0]", "{% set all.x = all.x + all.x %}"),
    "joined": TWICE % ("'a'", "{% set all.x = all.x ~ all.x %}"),
    "blocks": TWICE
    % ("'a'", "{% set both %}{{ all.x }}{{ all.x }}{% endset %}{% set all.x = both %}"),
    "output": f"{{% set x = 'a' * 9999999 %}}{{% for i in {MANY} %}}{{{{ x }}}}{{% endfor %}}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_ended(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "RENDER_SECONDS", 0.05)
    with pytest.raises(TemplateError, match=r"longer than 0\.05 s"):
        render(source, {})


@pytest.mark.parametrize("source", EXPLOSIVE.values(), ids=EXPLOSIVE)
def test_a_template_that_grows_without_end_is_ended(source: str) -> None:
    began = time.monotonic()
    with pytest.raises(TemplateError, match=r"too large|writes more than"):
        render(source, {})
    assert time.monotonic() - began < sandbox.RENDER_SECONDS


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for x in xs %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
         "1/2False 2/2True "),
        ("{% for x in xs %}{{ loop.nextitem }}{{ loop.previtem }}{% endfor %}", "ba"),
        ("{% for x in xs if x == 'b' %}{{ x }}{{ loop.first }}{% endfor %}", "bTrue"),
        ("{% for x in [] %}{% else %}none{% endfor %}", "none"),
        ("{% for x in missing %}{% else %}none{% endfor %}", "none"),
        ("{% for key, value in {'a': 1}.items() %}{{ key }}{{ value }}{% endfor %}", "a1"),
        ("{% for x in [[1], [2]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
         "12"),
        ("{{ xs ~ 1 ~ none ~ 'ü' }}", "['a', 'b']1Noneü"),
        ("{{ 2 ** 10 }} {{ 3 * 4 }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ 1 + 2.5 }} {{ 2 ** -1 }}",
         "1024 12 abab [1, 2] 3.5 0.5"),
    ],
)  # fmt: skip
def test_what_ends_is_rendered_as_ever(source: str, text: str) -> None:
    assert render(source, {"xs": ["a", "b"]}) == text


def test_a_rendering_leaves_nothing_to_the_next() -> None:
    source = "{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + x %}{% endfor %}"
    assert [render(source + "{{ ns.n }}", {"xs": xs}) for xs in ([1], [2, 3])] == ["1", "5"]


def test_a_template_renders_as_in_transformers() -> None:
    utils = importlib.import_module("transformers.utils.chat_template_utils")
    source = Path("tests/tiny/chat_template.jinja").read_text()
    call = {"function": {"name": "f", "arguments": {"a": "ü"}}}
    values: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": json.dumps({"b": "<>"})},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "add_generation_prompt": True,
    }
    assert render(source, values) == utils._compile_jinja_template(source).render(**values)
