"""A loaded model and its tokenizer: from files to memory, and from requests to token ids."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from backends import memory
from backends.errors import BadRequestError
from backends.mlx import library
from backends.mlx.body import load_body
from backends.mlx.checkpoints import checkpoints as find_checkpoints
from backends.mlx.encoder import Encoder, marks_of
from backends.mlx.grammar import Grammars, Mask, Thinking
from backends.mlx.notations import notation_of
from backends.mlx.spelling import Spellings
from backends.mlx.thread import Work
from backends.wire import sandbox
from backends.wire.answer_parser import ReasoningFormat
from backends.wire.constraint import Constraint
from backends.wire.defaults import defaults_of_folder
from backends.wire.dialect import Dialect, dialect_of
from backends.wire.request import GenerationRequest, Json
from backends.wire.template import rendered, without_nulls
from detect.safetensors_header import read_header

SLICE_BYTES = 256 * 2**20
"""Weights read in one step of loading."""

CACHE_LIMIT_BYTES = 256 * 2**20
"""Freed buffers that MLX may keep for reuse; its own default keeps as much as was ever used."""

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
"""Where configs say how many layers there are; each has a tensor of its own at least."""

HARMONY_THOUGHT = ReasoningFormat("", "<|channel|>final<|message|>")
"""All that comes before the answer itself: thoughts, and calls of tools instead of it."""

RENDERING_ARGUMENTS = frozenset(
    ("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt",
     "continue_final_message", "tokenize", "return_dict", "return_tensors", "tokenizer_kwargs")
)  # fmt: skip
"""What a request's `chat_template_kwargs` may not set: they are ours, not the template's."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The network in memory. Used on the engine thread only."""

    network: Any
    nbytes: int
    draft: Any = None
    """A smaller network with the same vocabulary, if one was asked for."""


def load_weights(
    folder: Path,
    count: Callable[[int], None],
    *,
    adapter: Path | None = None,
    draft: Path | None = None,
    headless: bool = False,
) -> Work[Weights]:
    """Read the weights, a slice at a step; `count` hears how many bytes there are so far.

    Raises:
        ValueError, OSError: mlx-lm's own reason why the model cannot be loaded.
    """
    mx = library.load("mlx.core")
    mx.set_cache_limit(CACHE_LIMIT_BYTES)
    # Every decoder sets this limit and restores what it found: it must find the same.
    library.load("mlx_lm.utils").maybe_set_recommended_wired_limit()
    networks = [_network(folder, adapter, headless=headless)]
    if draft is not None:
        networks.append(_network(draft))
        _check_vocabularies(folder, draft)
    # Each weight's first value, which is never used, has drawn a key from the one before: a chain
    # that would grow with every load until somebody draws for real.
    mx.eval(mx.random.state)
    nbytes = 0
    for network in networks:
        for arrays in _slices(network):
            mx.eval(arrays)
            nbytes += sum(array.nbytes for array in arrays)
            count(nbytes)
            yield
    return Weights(networks[0], nbytes, *networks[1:])


def _network(folder: Path, adapter: Path | None = None, *, headless: bool = False) -> Any:
    """Nothing of its weights is read yet."""
    utils = library.load("mlx_lm.utils")
    _check_layers(folder, utils.load_config(folder))
    if headless:
        network = load_body(folder)
    else:
        # Custom code in a model's folder is never run.
        network, _ = utils.load_model(folder, lazy=True, trust_remote_code=False)
    if adapter is not None:
        library.load("mlx_lm.tuner.utils").load_adapters(network, str(adapter))
        network.eval()
    return network


def _check_vocabularies(folder: Path, draft: Path) -> None:
    """A draft's guesses are token ids: they must mean the same in both."""
    sizes = [
        library.load("mlx_lm.utils").load_config(one).get("vocab_size") for one in (folder, draft)
    ]
    if sizes[0] != sizes[1]:
        raise ValueError(f"The draft has {sizes[1]} tokens and the model has {sizes[0]}.")


def _check_layers(folder: Path, config: Mapping[str, Any]) -> None:
    """The network is built as large as the config says, in one step that nothing can end: a claim
    of ten million layers would take all memory of the machine."""
    nested = (value for value in config.values() if isinstance(value, dict))
    claims = [part.get(key) for part in (config, *nested) for key in LAYER_COUNTS]
    claimed = max((count for count in claims if isinstance(count, int)), default=0)
    tensors = sum(len(read_header(file).tensors) for file in folder.glob("model*.safetensors"))
    if claimed > tensors:
        raise ValueError(
            f"config.json claims {claimed} layers and the weights have {tensors} tensors."
        )


def _slices(network: Any) -> Iterator[list[Any]]:
    arrays: list[Any] = []
    for _, array in library.load("mlx.utils").tree_flatten(network.parameters()):
        arrays.append(array)
        if sum(a.nbytes for a in arrays) >= SLICE_BYTES:
            yield arrays
            arrays = []
    if arrays:
        yield arrays


def give_back_memory() -> None:
    """Return what unreachable arrays held to the system; on the engine thread."""
    mx = library.load("mlx.core")
    gc.collect()
    mx.synchronize()
    mx.clear_cache()
    memory.trim()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as token ids, at least one, and the end of the text they were made from.

    `checkpoints` are lengths at which other prompts are expected to part from this one.
    """

    ids: list[int]
    end: str = ""
    checkpoints: tuple[int, ...] = ()

    def ends_with(self, marker: str) -> bool:
        return self.end.rstrip().endswith(marker)


class Text:
    """The tokenizer and the chat template with what they tell about the model's answers.

    Safe for one thread at a time; holds no MLX array.
    """

    def __init__(self, folder: Path) -> None:
        utils = library.load("mlx_lm.utils")
        config = utils.load_config(folder)
        self._tokenizer = _bounded(
            utils.load_tokenizer(
                folder,
                {"trust_remote_code": False},
                # mlx-lm lets generation_config.json decide, as it should.
                eos_token_ids=config.get("eos_token_id"),
            )
        )
        self._vocabulary = _vocabulary(config, len(self._tokenizer))
        self.defaults = defaults_of_folder(folder)
        self.stop_ids = frozenset(int(token) for token in self._tokenizer.eos_token_ids)
        self.dialect = self._dialect()
        self._marks = marks_of(self._tokenizer._tokenizer)
        self._encoder = Encoder(self._tokenizer._tokenizer, self._template())
        self._spellings = Spellings(self._tokenizer._tokenizer)
        self._grammars = Grammars(self._tokenizer._tokenizer, self._spelled, self.stop_ids)

    def prompt(self, request: GenerationRequest, *, checkpoints: bool = False) -> Prompt:
        """Finding the `checkpoints` of a chat takes several times as long.

        Raises:
            BadRequestError: there is no chat template, it refuses these messages, nothing is left
                to continue, or a token id is outside the vocabulary.
        """
        # MLX does not check indices: a wrong one would write to memory that is not its own.
        self._check_ids(request.sampling.logit_bias, "logit_bias")
        if request.chat:
            text = self._rendered(request)
            ids = self._encode(text, special=False)
            found = self._checkpoints(request, text, ids) if checkpoints else ()
            prompt = Prompt(ids, text[-64:], found)
        else:
            prompt = Prompt(self.tokens(request.prompt, "prompt"))
        self._check_known(prompt.ids)
        if not prompt.ids:
            param = "messages" if request.chat else "prompt"
            raise BadRequestError(
                f"`{param}` is empty: there is nothing to go on from.", param=param
            )
        return prompt

    def spelling(self, token: int) -> tuple[str, bytes]:
        """A token as text and as bytes."""
        return self._spellings.of(token)

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _dialect(self) -> Dialect:
        """What mlx-lm tells from template and vocabulary, and what it does not know from the
        template."""
        known = dialect_of(self._template())
        if known.harmony:
            return known
        tokenizer, reasoning = self._tokenizer, known.reasoning
        if tokenizer.has_thinking:
            reasoning = ReasoningFormat(tokenizer.think_start, tokenizer.think_end)
        return Dialect(reasoning, notation_of(tokenizer, known.tools))

    def _template(self) -> str:
        template = self._tokenizer.chat_template
        templates = template.values() if isinstance(template, dict) else [template]
        return "\n".join(text for text in templates if isinstance(text, str))

    def mask(self, request: GenerationRequest, prompt: Prompt) -> Mask | None:
        """What holds the answer to the form that the request demands; None if it demands none.

        Raises:
            BadRequestError: the form is wrong, or cannot be enforced on this model.
        """
        demanded = self.dialect.demanded(request)
        if demanded is None:
            return None
        return self._grammars.mask(
            demanded, self.dialect.written, self._thinking(request, demanded, prompt)
        )

    def _thinking(
        self, request: GenerationRequest, demanded: Constraint, prompt: Prompt
    ) -> Thinking | None:
        """None: the model answers at once, the prompt has a thought already, or the form has."""
        if self.dialect.harmony and request.chat:
            if demanded.answer is None:
                return None
            return Thinking(HARMONY_THOUGHT, open=True, may_end=bool(request.tools))
        reasoning = self.dialect.reasoning
        if reasoning is None or not request.chat or prompt.ends_with(reasoning.end):
            return None
        return Thinking(reasoning, open=prompt.ends_with(reasoning.start))

    def _spelled(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def tokens(self, given: str | tuple[int, ...], param: str) -> list[int]:
        """Of a text with what the tokenizer puts around each, or as they were given.

        Raises:
            BadRequestError: a token id is outside the vocabulary, or the text is no Unicode.
        """
        if isinstance(given, str):
            ids = self._encode(given, special=True, param=param)
            self._check_known(ids)
            return ids
        self._check_ids(given, param)
        return list(given)

    def _check_known(self, ids: list[int]) -> None:
        if max(ids, default=0) >= self._vocabulary:
            raise BadRequestError(
                f"The prompt holds the token {max(ids)}, and the model knows "
                f"{self._vocabulary}: its tokenizer is that of another one."
            )

    def _check_ids(self, ids: Iterable[int], param: str) -> None:
        size = self._vocabulary
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise BadRequestError(
                f"`{param}` holds the token id {wrong}; this model's are 0 to {size - 1}.",
                param=param,
            )

    def _checkpoints(
        self, request: GenerationRequest, text: str, ids: list[int]
    ) -> tuple[int, ...]:
        return find_checkpoints(
            request.messages,
            text,
            ids,
            lambda messages: self._rendered(replace(request, messages=tuple(messages))),
            lambda part: self._encode(part, special=False),
            self._marks,
        )

    def _encode(self, text: str, *, special: bool, param: str | None = None) -> list[int]:
        if len(text) > sandbox.MAX_CHARACTERS:
            # Encoding it would hold up the whole daemon.
            raise BadRequestError(
                f"The prompt has {len(text)} characters, with what the chat template adds; "
                f"{sandbox.MAX_CHARACTERS} are the most.",
                param=param,
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            # A template can write half a surrogate pair.
            raise BadRequestError("The prompt is not valid Unicode.", param=param) from None
        if special:
            return list(self._tokenizer.encode(text))
        return self._encoder.ids(text)

    def _rendered(self, request: GenerationRequest) -> str:
        if not self._tokenizer.has_chat_template:
            raise BadRequestError(
                "This model has no chat template: it continues text. Use /v1/completions.",
                param="messages",
            )
        own = RENDERING_ARGUMENTS.intersection(request.template_arguments)
        if own:
            raise BadRequestError(
                f"`chat_template_kwargs.{min(own)}` cannot be set by a request.",
                param=f"chat_template_kwargs.{min(own)}",
            )
        return rendered(
            request.messages,
            lambda messages: self._tokenizer.apply_chat_template(
                messages,
                tools=list(request.tools) or None,
                add_generation_prompt=True,
                tokenize=False,
                **request.template_arguments,
            ),
        )


def _vocabulary(config: Mapping[str, Any], tokens: int) -> int:
    """How many ids both the tokenizer and, as it claims, the network know."""
    text_config = config.get("text_config")
    claims = [part.get("vocab_size") for part in (config, text_config) if isinstance(part, dict)]
    return min([tokens, *(claim for claim in claims if isinstance(claim, int) and claim > 0)])


def _bounded(tokenizer: Any) -> Any:
    """With the model's template in our sandbox: nothing could end it in transformers'. Renderers
    in Python, which mlx-lm and transformers bring for some models, stay."""
    inner = tokenizer._tokenizer
    usual = library.load("transformers").PreTrainedTokenizerBase.apply_chat_template
    if tokenizer._chat_template is None and type(inner).apply_chat_template is usual:
        tokenizer._chat_template = partial(_render, inner)
    return tokenizer


def _render(
    tokenizer: Any, messages: list[Json], *, tools: list[Json] | None, **arguments: Any
) -> str:
    values = {**tokenizer.special_tokens_map, "documents": None, **arguments}
    own = {"messages": without_nulls(messages), "tools": tools}
    return sandbox.render(tokenizer.get_chat_template(tools=tools), {**values, **own})
