"""What mlx-lm and we tell from a model's chat template, on a real tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backends.mlx.model import Text
from backends.wire.dialect import Dialect
from backends.wire.events import ReasoningDelta, TextDelta, ToolCallArguments, ToolCallStart
from backends.wire.request import GenerationRequest
from tests.backends.wire.parsing import TOOLS, added, called, told
from tests.tiny.train import WEIGHTS

CHAT = GenerationRequest(messages=({"role": "user", "content": "a"},), tools=TOOLS)

ANSWERS = {
    "<tool_call> tool_call.name": '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
    "<tool_call>": '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
    "<tool_call>\n<function=": "<function=f><parameter=a>1</parameter></function>",
    "[TOOL_CALLS]": '[TOOL_CALLS]f[ARGS]{"a": 1}',
    "<|start_header_id|>ipython<|end_header_id|>": '{"name": "f", "parameters": {"a": 1}}',
    "<｜tool▁call▁begin｜>": '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>',
    "<|start|><|channel|><|message|>": '<|channel|>commentary to=functions.f<|message|>{"a": 1}',
    # Those of mlx-lm, read as a whole.
    "<arg_key>": "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
    "<|tool_call_start|>": "<|tool_call_start|>[f(a=1)]<|tool_call_end|>",
    "<longcat_tool_call>": "<longcat_tool_call>f<longcat_arg_key>a</longcat_arg_key>"
    "<longcat_arg_value>1</longcat_arg_value></longcat_tool_call>",
    "<|tool_calls_section_begin|>": "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
    '<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
}  # fmt: skip


def dialect(template: str, folder: Path) -> Dialect:
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(WEIGHTS / file, folder / file)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{# " + template + " #}"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Text(folder).dialect


@pytest.mark.parametrize("template", ANSWERS)
def test_a_call_is_read_as_the_template_teaches_it(template: str, tmp_path: Path) -> None:
    answer = ANSWERS[template]
    parser = dialect(template, tmp_path).parser(CHAT, "")
    text, ((name, arguments),) = added(told(parser, list(answer)))
    assert (text, name, {key: int(value) for key, value in arguments.items()}) == (
        "", "f", {"a": 1},
    )  # fmt: skip
    assert parser.called


def test_a_call_that_mlx_lm_reads_comes_whole(tmp_path: Path) -> None:
    parser = dialect("<arg_key>", tmp_path).parser(CHAT, "")
    events = [event for letter in ANSWERS["<arg_key>"] for event in parser.add(letter)]
    assert [type(event) for event in events] == [ToolCallStart, ToolCallArguments]


def test_reasoning_that_mlx_lm_does_not_know_is_told_from_the_template(tmp_path: Path) -> None:
    parser = dialect("[THINK] [/THINK] [TOOL_CALLS]", tmp_path).parser(CHAT, "")
    assert told(parser, ["[THINK]a[/THINK]b[TOOL_CALLS]f[ARGS]{}"]) == [
        ReasoningDelta("a"),
        TextDelta("b"),
        *called("{}"),
    ]


def test_arguments_of_a_request_reach_the_template(tmp_path: Path) -> None:
    dialect("#}{{ '<think>' if enable_thinking else 'no' }}{{ depth }}{#", tmp_path)
    text = Text(tmp_path)
    for thinking, end in ((True, "<think>7"), (False, "no7")):
        arguments = {"enable_thinking": thinking, "depth": 7}
        request = GenerationRequest(messages=CHAT.messages, template_arguments=arguments)
        assert text.prompt(request).end.strip() == end
