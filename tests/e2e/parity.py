"""Requests that mean the same on every engine, and where an engine differs, how and why: one table.

The tiny model recites the same text in every format, so that whole answers can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.e2e.heard import (
    CHAT,
    COUNT,
    EMBEDDINGS,
    MESSAGES,
    OLLAMA_CHAT,
    OLLAMA_GENERATE,
    RESPONSES,
    TEXT,
)
from tests.tiny import dialogues as d

Json = dict[str, Any]

MLX, LLAMA_CPP, MISTRAL_RS = "mlx", "llama.cpp", "mistral.rs"


@dataclass(frozen=True, slots=True)
class Difference:
    """`why` stands in docs/parameters.md; empty where the tables there say that the engine does not
    have it. `says` is what it says in place of what the others do, or beside it."""

    why: str
    says: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`says` is what every engine answers, whole and streamed, by the names of `tests.e2e.heard`;
    what it leaves out is not compared."""

    name: str
    path: str
    body: Mapping[str, Any]
    says: Mapping[str, Any]
    differs: Mapping[str, Difference] = field(default_factory=dict)
    streams: bool = True

    def said_by(self, engine: str) -> Mapping[str, Any]:
        difference = self.differs.get(engine)
        if difference is None:
            return self.says
        if difference.says.get("status", self.says["status"]) != self.says["status"]:
            return difference.says
        return {**self.says, **difference.says}


NOBODY: Mapping[str, Difference] = {}

# What is asked

ASK = (d.user(d.QUESTION),)
WEATHER = (d.user(d.WEATHER_QUESTION),)
SCHEMA = {
    "type": "object",
    "properties": {"song": {"enum": ["la"]}},
    "required": ["song"],
    "additionalProperties": False,
}
SING = {"type": "function", "function": {"name": "sing", "parameters": SCHEMA}}
TOOLS = [d.WEATHER_TOOL]
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": d.WEATHER_TOOL_RESULT}
FORCED = "300"
"""A token that the model would not say by itself."""
FORCED_TEXT = '"]'
LONG = "la " * 3000


def formed(schema: Any, **more: Any) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, **more}}


# What is answered

RECITED = {"status": 200, "text": d.SENTENCE, "reason": "stop", "choices": 1}
WHOLE = {**RECITED, "prompt_tokens": 21, "completion_tokens": 17}
BRIEF = {
    "status": 200, "text": "I am a", "reason": "length", "choices": 1, "prompt_tokens": 21,
    "completion_tokens": 3,
}  # fmt: skip
"""Enough where nothing is to be seen at the end of an answer."""
NO_END = {"status": 200, "reason": "length", "completion_tokens": 18}
"""The token that ends the answer was there before, and is not taken again."""
CALLED = {
    "status": 200, "text": "", "reason": "tool_calls", "prompt_tokens": 149,
    "calls": [("get_weather", d.WEATHER_ARGUMENTS)], "completion_tokens": 27,
}  # fmt: skip
SUNG = {"status": 200, "reason": "tool_calls", "calls": [("sing", {"song": "la"})]}
WENT_ON = {
    "status": 200, "text": d.CONTINUATION, "reason": "stop", "prompt_tokens": 8,
    "completion_tokens": 9,
}  # fmt: skip
PARROTED = {"status": 200, "text": d.SENTENCE.partition("parrot")[0], "reason": "stop"}


def cut(text: str, tokens: int) -> Json:
    return {"status": 200, "text": text, "reason": "length", "completion_tokens": tokens}


def wrong(param: str | None, code: str = "invalid_request") -> Json:
    return {"status": 400, "type": "invalid_request_error", "code": code, "param": param}


def lacks(param: str, *engines: str) -> dict[str, Difference]:
    return {engine: Difference("", wrong(param)) for engine in engines}


# Why engines differ

COUNTS_ONE = (
    "`n` answers, or several prompts: llama.cpp's `usage` has the tokens of one of them, the "
    "others' those of all."
)
TWENTY_BESIDE = (
    "`logprobs` without `top_logprobs`: llama.cpp tells the 20 likeliest tokens beside each, the "
    "others none."
)
TELLS_THE_END = "`logprobs`: llama.cpp has an entry for the token that ends an answer, too."
OWN_TEMPLATES = (
    "`tools`: llama.cpp writes their JSON into a prompt in its own way, so that `prompt_tokens` "
    "differs."
)
CUT_CALLS = (
    "A call that `max_tokens` has cut off: llama.cpp gives it as a call with the beginning of its "
    "arguments, the others as text where the answer is not streamed ([tools](tools.md))."
)
SLOTS = "`n`: llama.cpp gives as many answers as `--parallel` says at most, mlx 32."
COUNTS_ALL_CALLS = (
    "`parallel_tool_calls: false`, and a function that `tool_choice` names: llama.cpp lets a model "
    "call again; all but the first call is left out of the answer, and its tokens are counted in "
    "`usage`."
)
SPEAKS_FIRST = (
    "`tool_choice`: with llama.cpp, a model may speak before the call that is demanded of it; "
    "on the others, the answer begins with the call."
)
OWN_WORDS = (
    "A schema that cannot be enforced: llama.cpp says so in its own words, and `param` is null."
)
NO_CONTENT = "A message without `content`: a 400 from llama.cpp, an empty one for the others."
WHICH_PART = (
    "A part of a message that the model cannot take: `param` is `messages` on llama.cpp, and its "
    "path on the others."
)
EMPTY_PROMPT = (
    "An empty `prompt`: llama.cpp gives an empty answer, the others a 400, where the model has no "
    "token for a text's beginning."
)
COUNTS_MORE = "`frequency_penalty` makes tokens less likely sooner on mistral.rs."
STOP_UNTOLD = (
    "`stop_reason` of Anthropic's dialect: llama.cpp does not tell that a stop sequence was met."
)
UNKNOWN_TOKENS = "`logit_bias` of a token that the model does not have: a 400 on mlx, else ignored."

ONE_OF_TWO = Difference(COUNTS_ONE, {"completion_tokens": 17})
SPACED = {LLAMA_CPP: Difference(OWN_TEMPLATES, {"prompt_tokens": 161})}


def chat(name: str, says: Json, differs: Mapping[str, Difference] = NOBODY, **body: Any) -> Request:
    """About who the model is, at temperature 0."""
    asked = {"messages": ASK, "temperature": 0, **body}
    return Request(name=name, path=CHAT, body=asked, says=says, differs=differs)


def text(name: str, says: Json, differs: Mapping[str, Difference] = NOBODY, **body: Any) -> Request:
    asked = {"prompt": d.PROMPT, "temperature": 0, "max_tokens": 20, **body}
    return Request(name=name, path=TEXT, body=asked, says=says, differs=differs)


LENGTHS = (
    chat("nothing said", WHOLE),
    chat("one token", cut("I", 1), max_tokens=1),
    chat("the newer limit", cut("I am a", 3), max_completion_tokens=3, max_tokens=5),
    chat("llama.cpp's limit", cut("I am a", 3), n_predict=3),
    chat("a huge limit", WHOLE, max_tokens=10**6),
    chat("a limit past all counting", wrong("max_tokens"), max_tokens=10**12),
    chat("no tokens", wrong("max_tokens"), max_tokens=0),
    chat("less than none", wrong("max_completion_tokens"), max_completion_tokens=-1),
    chat("half a token", wrong("max_tokens"), max_tokens=1.5),
    chat(
        "a prompt that is too long",
        wrong("messages", "context_length_exceeded"),
        messages=(d.user(LONG),),
    ),
)

SAMPLING = (
    chat("the likeliest token", BRIEF, temperature=1, top_k=1, max_tokens=3),
    chat("the least share", BRIEF, temperature=1, top_p=0.000001, max_tokens=3),
    chat("only as likely ones", BRIEF, temperature=1, top_k=0, min_p=1.0, max_tokens=3),
    chat("all tokens", BRIEF, top_k=-1, max_tokens=3),
    chat("any seed", BRIEF, seed=-1, max_tokens=3),
    chat("a seed", BRIEF, lacks("seed", MISTRAL_RS), temperature=1, top_k=1, seed=7, max_tokens=3),
    chat(
        "OpenAI's penalties",
        {"status": 200, "text": "la la la la la la laing"},
        {MISTRAL_RS: Difference(COUNTS_MORE, {"text": "la la la la la laing "})},
        messages=(d.user(d.SONG_QUESTION),),
        frequency_penalty=2,
        max_tokens=8,
    ),
    chat("a penalty by vLLM's name", NO_END, repetition_penalty=10, max_tokens=18),
    chat("a penalty by llama.cpp's name", NO_END, repeat_penalty=10, max_tokens=18),
    chat("a token that must come", cut(FORCED_TEXT * 3, 3), logit_bias={FORCED: 100}, max_tokens=3),
    chat(
        "a token that there is not",
        cut("I am a", 3),
        {MLX: Difference(UNKNOWN_TOKENS, wrong("logit_bias"))},
        logit_bias={"9999999": 100},
        max_tokens=3,
    ),
    chat("a token by its text", wrong("logit_bias"), logit_bias={"a": 1}),
    chat("a temperature that is none", wrong("temperature"), temperature="hot"),
    chat("a temperature below zero", wrong("temperature"), temperature=-1),
    chat("a share above one", wrong("top_p"), top_p=2),
    chat("a penalty that is too large", wrong("presence_penalty"), presence_penalty=5),
    *(
        chat(f"llama.cpp's {name}", BRIEF, lacks(name, MLX, MISTRAL_RS), max_tokens=3,
             **{name: value})
        for name, value in {
            "mirostat": 2, "typical_p": 0.5, "top_n_sigma": 1.0, "xtc_probability": 0.5,
            "dry_multiplier": 0.8, "dynatemp_range": 0.5,
        }.items()
    ),
    chat("samplers that do nothing", BRIEF, mirostat=0, typical_p=1.0, top_n_sigma=-1.0,
         dry_multiplier=0.0, xtc_probability=0.0, ignore_eos=False, max_tokens=3),
    chat(
        "no end",
        {"status": 200, "reason": "length", "completion_tokens": 30},
        lacks("ignore_eos", MLX, MISTRAL_RS),
        ignore_eos=True,
        max_tokens=30,
    ),
)  # fmt: skip

STOPS = (
    chat("a stop text", PARROTED, stop="parrot"),
    chat("the first of several", PARROTED, stop=["words", "parrot"]),
    chat(
        "a stop text across tokens",
        {"status": 200, "reason": "stop", "text": d.SENTENCE.partition("ame words on")[0]},
        stop="ame words on",
    ),
    chat("a stop text at the start", {"status": 200, "text": "", "reason": "stop"}, stop="I am"),
    chat("no stop text", BRIEF, stop=[], max_tokens=3),
    chat("empty stop texts", BRIEF, stop=["", ""], max_tokens=3),
    chat("a stop that is none", wrong("stop"), stop=5),
    chat("too many stops", wrong("stop"), stop=["x"] * 17),
)

SEVERAL = (
    chat("two answers", {**WHOLE, "choices": 2, "completion_tokens": 34},
         {LLAMA_CPP: ONE_OF_TWO, **lacks("n", MISTRAL_RS)}, n=2),
    chat("five answers", {**BRIEF, "choices": 5, "completion_tokens": 15},
         {LLAMA_CPP: Difference(SLOTS, wrong("n")), **lacks("n", MISTRAL_RS)}, n=5, max_tokens=3),
    chat("no answer", wrong("n"), n=0),
    chat("likelihoods", {**cut("I am a small parrot", 5), "likelihoods": (5, 0)},
         {LLAMA_CPP: Difference(TWENTY_BESIDE, {"likelihoods": (5, 20)}),
          **lacks("logprobs", MISTRAL_RS)}, logprobs=True, max_tokens=5),
    chat("the likeliest", {**cut("I am a small", 4), "likelihoods": (4, 3)},
         lacks("logprobs", MISTRAL_RS), logprobs=True, top_logprobs=3, max_tokens=4),
    chat("too many of the likeliest", wrong("top_logprobs"), logprobs=True, top_logprobs=21),
    chat("the likeliest of nothing", wrong("top_logprobs"), top_logprobs=3),
)  # fmt: skip

CALLS = (
    chat("a call", CALLED, SPACED, messages=WEATHER, tools=TOOLS),
    chat("one call at most", CALLED, SPACED, messages=WEATHER, tools=TOOLS,
         parallel_tool_calls=False),
    chat("a demanded call", CALLED, SPACED, messages=WEATHER, tools=TOOLS, tool_choice="required"),
    chat("a call of a model that would go on calling", {**SUNG, "completion_tokens": 29},
         {LLAMA_CPP: Difference(COUNTS_ALL_CALLS, {"completion_tokens": 146})},
         messages=WEATHER, tools=[SING], tool_choice="required", parallel_tool_calls=False),
    chat("a call of one function", SUNG,
         messages=WEATHER, tools=[d.WEATHER_TOOL, SING],
         tool_choice={"type": "function", "function": {"name": "sing"}}),
    chat("a call without a reason", SUNG,
         {LLAMA_CPP: Difference(SPEAKS_FIRST, {"reason": "length", "calls": []})},
         tools=[SING], tool_choice="required", max_tokens=40),
    replace(
        chat("a call that is cut off", {
            "status": 200, "reason": "length", "calls": [],
            "text": '<tool_call>\n{"name": "get_weather", "arguments": {"city'},
            {LLAMA_CPP: Difference(CUT_CALLS,
                                   {"text": "", "calls": [("get_weather", '{"city')]})},
            messages=WEATHER, tools=TOOLS, max_tokens=20),
        streams=False,
    ),
    chat("no call", BRIEF, tools=TOOLS, tool_choice="none", max_tokens=3),
    chat("a result", {"status": 200, "text": d.WEATHER, "reason": "stop", "prompt_tokens": 234},
         {LLAMA_CPP: Difference(OWN_TEMPLATES, {"prompt_tokens": 246})},
         messages=(*WEATHER, d.ASSISTANT_TOOL_CALL, RESULT), tools=TOOLS),
    chat("a function that is none", wrong("tool_choice.function.name"), tools=TOOLS,
         tool_choice={"type": "function", "function": {"name": "fly"}}),
    chat("a demand without tools", wrong("tool_choice"), tool_choice="required"),
    chat("a choice that is none", wrong("tool_choice"), tools=TOOLS, tool_choice="maybe"),
    chat("tools that are none", wrong("tools"), tools="hammer"),
    chat("a tool without a name", wrong("tools[0].function"), tools=[{"type": "function"}]),
    chat("neither one call nor several", wrong("parallel_tool_calls"), tools=TOOLS,
         parallel_tool_calls="no"),
    chat("functions, as they were once", wrong("functions"), functions=[{"name": "f"}]),
    chat("a call, as it was once", wrong("function_call"), function_call={"name": "f"}),
)  # fmt: skip

FORMS = (
    chat("text", BRIEF, response_format={"type": "text"}, max_tokens=3),
    chat("a schema", {"status": 200, "text": '"x"', "reason": "stop"},
         response_format=formed({"enum": ["x"]})),
    chat("the schema itself", {"status": 200, "text": '"x"'}, json_schema={"enum": ["x"]}),
    chat("an object", {"status": 200, "value": {"a": 1}, "reason": "stop"},
         response_format=formed({"const": {"a": 1}})),
    chat("a grammar", {"status": 200, "text": "yes", "reason": "stop"}, grammar='root ::= "yes"'),
    chat("a grammar in Lark", {"status": 200, "text": "yes", "reason": "stop"},
         lacks("grammar", LLAMA_CPP), grammar='%llguidance {}\nstart: "yes"'),
    chat("a grammar beside tools", {"status": 200}, lacks("grammar", LLAMA_CPP),
         grammar='root ::= "yes"', tools=TOOLS, max_tokens=1),
    chat("a regular expression", {"status": 200, "text": "yes", "reason": "stop"},
         lacks("grammar", LLAMA_CPP), grammar={"type": "regex", "value": "yes"}),
    chat("a keyword that llama.cpp leaves out", {"status": 200, "text": "5000"},
         lacks("response_format", LLAMA_CPP),
         response_format=formed({"enum": [1, 5000], "multipleOf": 1000})),
    chat("a keyword that all leave out", wrong("response_format.json_schema.schema"),
         response_format=formed({"not": {}})),
    chat("a schema of nothing known", wrong("response_format.json_schema.schema"),
         {LLAMA_CPP: Difference(OWN_WORDS, {"param": None})},
         response_format=formed({"type": "strange"})),
    chat("no schema", wrong("response_format.json_schema.schema"),
         response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
    chat("a form that is none", wrong("response_format"), response_format="json"),
    chat("a form that nobody knows", wrong("response_format.type"),
         response_format={"type": "xml"}),
)  # fmt: skip

TURNS = (
    chat("a system's message", cut("I am a", 3), messages=(d.system(d.SYSTEM), *ASK),
         max_tokens=3),
    chat("a developer's message", cut("I am a", 3),
         messages=({"role": "developer", "content": d.SYSTEM}, *ASK), max_tokens=3),
    chat("parts", BRIEF, messages=(
        {"role": "user", "content": [{"type": "text", "text": d.QUESTION}]},), max_tokens=3),
    chat("two parts", {"status": 200, "prompt_tokens": 22}, max_tokens=1, messages=(
        {"role": "user", "content": [
            {"type": "text", "text": "Who are"}, {"type": "text", "text": " you?"}]},)),
    chat("an answer that is there", {"status": 200, "prompt_tokens": 36}, max_tokens=1,
         messages=(*ASK, d.assistant("I am a"))),
    chat("no content", {"status": 200, "prompt_tokens": 17},
         {LLAMA_CPP: Difference(NO_CONTENT, wrong("messages"))}, max_tokens=1,
         messages=({"role": "user"},)),
    chat("content that is null", {"status": 200, "prompt_tokens": 17}, max_tokens=1,
         messages=({"role": "user", "content": None},)),
    chat("content that is none", wrong("messages[0].content"),
         messages=({"role": "user", "content": 5},)),
    chat("a part that is none", wrong("messages[0].content[0]"),
         {LLAMA_CPP: Difference(WHICH_PART, {"param": "messages"})},
         messages=({"role": "user", "content": [{"type": "smell"}]},)),
    chat("nobody's message", wrong("messages[0].role"),
         messages=({"role": "wizard", "content": "x"},)),
    chat("no messages", wrong("messages"), messages=()),
    chat("thinking", BRIEF, chat_template_kwargs={"enable_thinking": False}, max_tokens=3),
    chat("how much to think", BRIEF, reasoning_effort="low", max_tokens=3),
    chat("arguments that are none", wrong("chat_template_kwargs"), chat_template_kwargs="x"),
    chat("what nobody knows", BRIEF, unknown_field=1, max_tokens=3),
    chat("what is about OpenAI's servers", BRIEF, user="me", metadata={"a": "b"}, store=True,
         max_tokens=3),
    chat("a sound", wrong("modalities"), modalities=["text", "audio"]),
    chat("a search", wrong("web_search_options"), web_search_options={}),
    chat("options that are none", wrong("stream_options"), stream_options=5),
)  # fmt: skip

TEXTS = (
    text("a text", WENT_ON),
    text("one text of one", WENT_ON, prompt=[d.PROMPT]),
    text("two texts", {**WENT_ON, "choices": 2}, lacks("prompt", MLX, MISTRAL_RS),
         prompt=[d.PROMPT, d.PROMPT]),
    text("token ids", cut("ar la la", 3), lacks("prompt", MISTRAL_RS), prompt=[300, 301],
         max_tokens=3),
    text("ids that are none", wrong("prompt"), prompt=[10**7], max_tokens=3),
    text("an empty text", wrong("prompt"),
         {LLAMA_CPP: Difference(EMPTY_PROMPT, {"status": 200, "text": ""})}, prompt=""),
    text("no text", wrong("prompt"), prompt=[]),
    text("a text that is too long", wrong("prompt", "context_length_exceeded"), prompt=LONG),
    text("the prompt again", wrong("echo"), echo=True),
    text("a text between two", wrong("suffix"), suffix="x"),
    text("the best of two", wrong("best_of"), best_of=2),
    text("two continuations", {**WENT_ON, "choices": 2, "completion_tokens": 18},
         {LLAMA_CPP: Difference(COUNTS_ONE, {"completion_tokens": 9}), **lacks("n", MISTRAL_RS)},
         n=2),
    text("likelihoods of a text", {**WENT_ON, "likelihoods": (8, 2)},
         {LLAMA_CPP: Difference(TELLS_THE_END, {"likelihoods": (9, 2)}),
          **lacks("logprobs", MISTRAL_RS)}, logprobs=2),
    text("likelihoods of the text alone", {**WENT_ON, "likelihoods": (8, 0)},
         lacks("logprobs", LLAMA_CPP, MISTRAL_RS), logprobs=0),
    text("a form of a text", {"status": 200, "text": '"x"'},
         response_format=formed({"enum": ["x"]})),
    text("a stop text of a text", {"status": 200, "text": " a", "reason": "stop"}, stop=" cra"),
    text("a function that a text cannot call", WENT_ON,
         tool_choice={"type": "function", "function": {"name": "sing"}}),
    text("a text's temperature that is none", wrong("temperature"), temperature="x"),
)  # fmt: skip

SAID = {"status": 200, "text": d.SENTENCE, "prompt_tokens": 21, "completion_tokens": 17}
REFUSED = {"status": 400, "type": "invalid_request_error"}
COLD = {"options": {"temperature": 0}}
TOOLS_OF_ANTHROPIC = [
    {"name": "get_weather", "input_schema": d.WEATHER_TOOL["function"]["parameters"]}
]
PLAIN_CALL = {"status": 200, "calls": CALLED["calls"]}
SUNG_ONCE = {"status": 200, "calls": SUNG["calls"]}

DIALECTS = (
    Request(name="Anthropic's message", path=MESSAGES, says={**SAID, "reason": "end_turn"},
            body={"messages": ASK, "max_tokens": 50, "temperature": 0}),
    Request(name="a stop sequence", path=MESSAGES,
            says={"status": 200, "text": PARROTED["text"], "reason": "stop_sequence"},
            differs={LLAMA_CPP: Difference(STOP_UNTOLD, {"reason": "end_turn"})},
            body={"messages": ASK, "max_tokens": 50, "temperature": 0,
                  "stop_sequences": ["parrot"]}),
    Request(name="a stop sequence that begins within a token", path=MESSAGES,
            says={"status": 200, "text": "I am a small par", "reason": "stop_sequence"},
            differs={LLAMA_CPP: Difference(STOP_UNTOLD, {"reason": "end_turn"})},
            body={"messages": ASK, "max_tokens": 50, "temperature": 0,
                  "stop_sequences": ["and I say", "rot, and"]}),
    Request(name="a stop sequence that does not come", path=MESSAGES,
            says={**SAID, "reason": "end_turn"},
            body={"messages": ASK, "max_tokens": 50, "temperature": 0,
                  "stop_sequences": ["crow"]}),
    Request(name="a tool's use", path=MESSAGES, says={**PLAIN_CALL, "reason": "tool_use"},
            body={"messages": WEATHER, "max_tokens": 50, "temperature": 0,
                  "tools": TOOLS_OF_ANTHROPIC}),
    Request(name="one use of a tool", path=MESSAGES, says={**SUNG_ONCE, "reason": "tool_use"},
            body={"messages": WEATHER, "max_tokens": 200, "temperature": 0,
                  "tools": [{"name": "sing", "input_schema": SCHEMA}],
                  "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}),
    Request(name="a message that is too long", path=MESSAGES, says=REFUSED,
            body={"messages": (d.user(LONG),), "max_tokens": 5}),
    Request(name="a wrong temperature", path=MESSAGES, says=REFUSED,
            body={"messages": ASK, "max_tokens": 5, "temperature": -1}),
    Request(name="a prompt's length", path=COUNT, says={"status": 200, "prompt_tokens": 21},
            body={"messages": ASK}, streams=False),
    Request(name="a response", path=RESPONSES, says={**SAID, "reason": "completed"},
            body={"input": d.QUESTION, "temperature": 0}),
    Request(name="a response that is cut off", path=RESPONSES,
            says={"status": 200, "text": "I am a", "reason": "max_output_tokens"},
            body={"input": d.QUESTION, "temperature": 0, "max_output_tokens": 3}),
    Request(name="a response with one call", path=RESPONSES, says=SUNG_ONCE,
            body={"input": d.WEATHER_QUESTION, "temperature": 0, "parallel_tool_calls": False,
                  "tools": [{"type": "function", "name": "sing", "parameters": SCHEMA}],
                  "tool_choice": "required"}),
    Request(name="Ollama's chat", path=OLLAMA_CHAT, says={**SAID, "reason": "stop"},
            body={"messages": ASK, **COLD}),
    Request(name="Ollama's call", path=OLLAMA_CHAT, says=PLAIN_CALL,
            body={"messages": WEATHER, "tools": TOOLS, **COLD}),
    Request(name="Ollama's seed", path=OLLAMA_CHAT, says=SAID,
            differs={MISTRAL_RS: Difference("", {"status": 400})},
            body={"messages": ASK, "options": {"temperature": 0, "seed": 5}}),
    Request(name="Ollama's text", path=OLLAMA_GENERATE,
            says={"status": 200, "text": d.CONTINUATION, "reason": "stop"},
            body={"prompt": d.PROMPT, "raw": True, **COLD}),
    Request(name="vectors of a model that writes", path=EMBEDDINGS, says=wrong("model"),
            body={"input": "a"}, streams=False),
)  # fmt: skip

REQUESTS = (
    *LENGTHS, *SAMPLING, *STOPS, *SEVERAL, *CALLS, *FORMS, *TURNS, *TEXTS, *DIALECTS,
)  # fmt: skip


def differences() -> Iterator[tuple[Request, str, Difference]]:
    for request in REQUESTS:
        for engine, difference in request.differs.items():
            yield request, engine, difference
