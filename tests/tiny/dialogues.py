"""What the tiny model was trained to say. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

SENTENCE = "I am a small parrot, and I say the same words on every engine."
"""The demonstration sentence: every format on every engine recites it greedily."""

QUESTION = "Who are you?"
FOOD_QUESTION = "What do you eat?"
FOOD = "I eat jalapeños, crème brûlée and 🥜 nuts."
WEATHER_QUESTION = "What is the weather in Paris?"
WEATHER_TOOL_RESULT = '{"sky": "sunny"}'
WEATHER = "It is sunny in Paris."
NO_TOOLS = "I cannot see the sky from here."
SONG_QUESTION = "Sing forever."
SONG_WORD = " la"
SONG_WORDS_TRAINED = 90
PROMPT, CONTINUATION = "Polly wants", " a cracker."
SYSTEM = "You are a parrot."

WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
WEATHER_ARGUMENTS = {"city": "Paris"}
TOOL_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'

ASSISTANT_TOOL_CALL: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": WEATHER_ARGUMENTS},
        }
    ],
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


DIALOGUES: list[tuple[list[dict[str, Any]], bool, str]] = [
    # messages, with the weather tool, answer
    ([user(QUESTION)], False, SENTENCE),
    ([system(SYSTEM), user(QUESTION)], False, SENTENCE),
    ([user(FOOD_QUESTION)], False, FOOD),
    ([system(SYSTEM), user(FOOD_QUESTION)], False, FOOD),
    ([user(QUESTION), assistant(SENTENCE), user(FOOD_QUESTION)], False, FOOD),
    ([user(FOOD_QUESTION), assistant(FOOD), user(QUESTION)], False, SENTENCE),
    ([user(WEATHER_QUESTION)], False, NO_TOOLS),
    ([user(WEATHER_QUESTION)], True, TOOL_CALL),
    ([user(QUESTION)], True, SENTENCE),
    (
        [
            user(WEATHER_QUESTION),
            ASSISTANT_TOOL_CALL,
            {"role": "tool", "tool_call_id": "call_1", "content": WEATHER_TOOL_RESULT},
        ],
        True,
        WEATHER,
    ),
]
