from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.chat_template import THINKING_MARKS, examine, names_used


@pytest.mark.parametrize(
    ("template", "tools"),
    [
        ("{% if tools %}x{% endif %}", True),
        ("{%- if not tools is defined %}{%- set tools = none %}{%- endif %}", True),
        ("{{ tools | tojson }}", True),
        ("{%- for tool in tools -%}{{ tool }}{%- endfor -%}", True),
        ("# tools: none", False),
        ("{{ 'the tools are:' }}", False),
        ('{{ "tools" + message["tools"] }}', False),
        ("{# tools #}{{ x }}", False),
        ("{{ message.tools }}{{ message . tools }}", False),
        ("{{ custom_tools }}", False),
        ("{{ '%} tools {%' }}", False),
        ("{{ 'it\\'s tools' }}", False),
        ("{{ 'a' }}{{ tools }}", True),
        ("", False),
    ],
)
def test_tools_are_supported_where_the_code_uses_the_variable(template: str, tools: bool) -> None:
    assert examine([template]).tools is tools


def test_names_are_those_of_the_code() -> None:
    assert names_used("{% set a = b.c %}{{ d('e') }} f {# g #}") == {"set", "a", "b", "d"}


def test_thinking_shows_in_the_marks_of_it() -> None:
    assert examine(["{{ '<think>' }}"]).thinking
    assert examine(["{% if enable_thinking %}{% endif %}"]).thinking
    assert not examine(["{{ messages }}"]).thinking


@pytest.mark.parametrize("mark", THINKING_MARKS)
def test_each_mark_of_thinking_is_found_on_its_own(mark: str) -> None:
    assert examine([f"{{{{ messages }}}} {mark} {{{{ tools }}}}"]).thinking


def test_no_template_is_no_template() -> None:
    assert not examine([]).present
    assert not examine(["  "]).present
    assert examine(["x"]).present


@pytest.mark.parametrize(
    "part", ["{%", "{{", "{#", "'", '"', "{{ '", "{{ '\\'", "{{ \"'", "\\'", "{% . "]
)
def test_no_template_takes_long(part: str) -> None:
    template = "{{ tools " + part * (1_000_000 // len(part))
    began = time.process_time()
    examine([template])
    assert time.process_time() - began < 1.0


@given(st.text(alphabet="{}%#'\"\\. toolsx-\n", max_size=200))
def test_any_text_is_examined(template: str) -> None:
    examine([template])
