from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from backends.errors import BadRequestError
from backends.wire.request import GenerationRequest
from backends.wire.template import ChatTemplate, named

HELLO = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f", "description": "<b>ü</b> & 'x'"}}


def render(source: str, tokens: dict[str, str] | None = None, **request: Any) -> str:
    template = ChatTemplate({"default": source}, tokens or {})
    return template.render(GenerationRequest(**{"messages": (HELLO,), **request}))


def refused(source: str, **request: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        render(source, **request)
    return caught.value


def test_messages_tools_and_tokens_are_at_hand() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content'] }}{% endfor %}"
        "{{ tools }}{{ add_generation_prompt }}"
    )
    assert render(source, {"bos_token": "<s>"}) == "<s>user: HelloNoneTrue"


def test_blocks_leave_no_lines_behind() -> None:
    assert render("a\n  {% if true %}\nb\n  {% endif %}\nc") == "a\nb\nc"


def test_marks_for_training_are_nothing() -> None:
    assert render("a{% generation %}b{{ messages[0].role }}{% endgeneration %}c") == "abuserc"


def test_loops_can_be_left() -> None:
    loop = "{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    assert render(loop) == "1"


def test_json_is_written_without_escapes() -> None:
    assert render("{{ tools[0].function.description | tojson }}", tools=(TOOL,)) == (
        "\"<b>ü</b> & 'x'\""
    )


def test_json_can_be_indented() -> None:
    assert render("{{ messages | tojson(indent=1) }}").startswith('[\n {\n  "role"')


def test_the_date_is_at_hand() -> None:
    assert re.fullmatch(r"\d{4}-\d\d", render("{{ strftime_now('%Y-%m') }}"))


def test_a_request_may_set_what_the_template_asks_for() -> None:
    source = "{{ enable_thinking }}{{ bos_token }}"
    arguments = {"enable_thinking": False, "bos_token": "!"}
    assert render(source, {"bos_token": "<s>"}, template_arguments=arguments) == "False!"


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt"])
def test_a_request_may_not_set_what_is_ours(name: str) -> None:
    error = refused("a", template_arguments={name: []})
    assert error.param == f"chat_template_kwargs.{name}"


def test_a_request_may_not_break_the_call() -> None:
    assert render("a", template_arguments={"self": 1, "source": 1, "values": 1}) == "a"


def test_what_is_null_in_a_message_is_missing() -> None:
    message = {**HELLO, "tool_calls": None}
    assert render("{{ messages[0].tool_calls is defined }}", messages=(message,)) == "False"


def test_with_tools_the_template_for_tools_is_taken() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "tools"})
    assert template.render(GenerationRequest(messages=(HELLO,))) == "plain"
    assert template.render(GenerationRequest(messages=(HELLO,), tools=(TOOL,))) == "tools"
    assert template.text == "plain\ntools"


def test_without_a_template_the_other_path_is_named() -> None:
    with pytest.raises(BadRequestError, match="/v1/completions") as caught:
        ChatTemplate({"rag": "x"}).render(GenerationRequest(messages=(HELLO,)))
    assert caught.value.param == "messages"


def test_what_a_template_says_against_the_messages_is_passed_on() -> None:
    error = refused("{{ raise_exception('roles must alternate') }}")
    assert error.param == "messages"
    assert "roles must alternate" in error.message


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ unclosed",
        "{% generation %}never closed",
        "{{ 1 / 0 }}",
        "{{ messages.nothing.more }}",
        "{{ messages | tojson(nonsense=1) }}",
        "{{ strftime_now(1) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'x' %}",
        "{{ range(10 ** 9) }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    ],
)
def test_a_template_that_fails_refuses_the_request(source: str) -> None:
    assert refused(source).param == "messages"


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('CANARY') }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "{{ strftime_now.__globals__.datetime.sys.modules }}",
    "{{ self.__init__.__globals__ }}",
    "{{ (messages | map(attribute='__class__') | list)[0].__base__.__subclasses__() }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'a': 1}) }}",
    "{{ open('CANARY', 'w') }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_hostile_template_reaches_nothing(source: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = source.replace("os.system('CANARY')", f"os.system('touch {canary}')")
    assert refused(source.replace("CANARY", str(canary))).param == "messages"
    assert not canary.exists()


@pytest.mark.parametrize(
    ("value", "templates"),
    [
        ("a", {"default": "a"}),
        ([{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}],
         {"default": "a", "tool_use": "b"}),
        ([{"template": "a"}], {"default": "a"}),
        ([1, None, {"name": "x"}, {"name": "y", "template": 1}], {}),
        ("", {}), (None, {}), (1, {}), ({"default": "a"}, {}), ([], {}),
    ],
)  # fmt: skip
def test_templates_are_found_in_each_form_they_are_written_in(
    value: Any, templates: dict[str, str]
) -> None:
    assert named(value) == templates


# Arguments of calls, as templates of each family write them

CALL = "messages[0].tool_calls[0].function.arguments"
TEMPLATES = {
    "qwen3": f"{{% set a = {CALL} %}}{{% if a is string %}}{{{{ a }}}}{{% else %}}"
    "{{ a | tojson }}{% endif %}",
    "qwen2.5, hermes, llama3": f"{{{{ {CALL} | tojson }}}}",
    "qwen3-coder": f"{{% for k, v in {CALL} | items %}}{{{{ k }}}}={{{{ v }}}};{{% endfor %}}",
    "glm": f"{{% for k, v in {CALL}.items() %}}{{{{ k }}}}={{{{ v }}}};{{% endfor %}}",
    "deepseek": f"{{{{ '```' + {CALL} + '```' }}}}",
}
WHOLE, CUT = {"a": "ü"}, '{"a": "ü'


def calling(arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


@pytest.mark.parametrize(
    ("family", "whole", "cut"),
    [
        ("qwen3", '{"a": "ü"}', CUT),
        ("qwen2.5, hermes, llama3", '{"a": "ü"}', '"{\\"a\\": \\"ü"'),
        ("qwen3-coder", "a=ü;", ""),
        ("glm", "a=ü;", ""),
        ("deepseek", '```{"a": "ü"}```', f"```{CUT}```"),
    ],
)
def test_every_family_gets_arguments_as_it_takes_them(family: str, whole: str, cut: str) -> None:
    assert render(TEMPLATES[family], messages=(calling(WHOLE),)) == whole
    assert render(TEMPLATES[family], messages=(calling(CUT),)) == cut


def test_what_no_way_of_writing_arguments_helps_is_told_in_the_templates_words() -> None:
    source = "{{ raise_exception('No calls, please: ' ~ (" + CALL + " is string)) }}"
    assert "No calls, please: True" in refused(source, messages=(calling(CUT),)).message
