"""Train the tiny model until it recites: `python -m tests.tiny.train [TARGET]`.

A llama of 0.4 M parameters and a 384-token byte-level BPE learn the dialogues of
`dialogues.py` by heart, with noise on the weights so that quantising them changes no word.
Takes a few minutes of one core; the result is committed as `tests/tiny/weights`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.tiny import dialogues as d

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALL_START, CALL_END = "<tool_call>", "</tool_call>"

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 384,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "eos_token_id": 2,
    "torch_dtype": "float16",
}

STEPS, PEAK_RATE, NOISE = 900, 4e-3, 0.16
LENGTH = 256


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS
    target.mkdir(parents=True, exist_ok=True)
    write_tokenizer(target)
    began = time.monotonic()
    model = train(target)
    save(model, target)
    print(f"trained in {time.monotonic() - began:.0f} s")
    return 0 if recites(target) else 1


def write_tokenizer(target: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"] - 2,
        special_tokens=[END, START, STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken(CALL_START, special=False, normalized=False)])
    tokenizer.add_tokens([AddedToken(CALL_END, special=False, normalized=False)])
    assert tokenizer.get_vocab_size() <= CONFIG["vocab_size"], tokenizer.get_vocab_size()
    tokenizer.save(str(target / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": STOP,
        "pad_token": END,
        "bos_token": None,
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": (HERE / "chat_template.jinja").read_text(),
    }
    write_json(target / "tokenizer_config.json", settings)
    write_json(target / "config.json", CONFIG)
    write_json(target / "generation_config.json", {"eos_token_id": [2, 0], "do_sample": False})


def corpus() -> Iterator[str]:
    for messages, _, answer in d.DIALOGUES:
        yield answer
        yield from (str(message["content"]) for message in messages)
    for spelling in spellings(d.WEATHER_TOOL):
        yield from [spelling] * 4
    yield d.PROMPT + d.CONTINUATION
    yield d.SONG_QUESTION + d.SONG_WORD * 8


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def samples(target: Path) -> Iterator[tuple[list[int], int]]:
    """Token ids and where the answer begins, in every spelling of the tools that engines use."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(target)

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    for messages, with_tools, answer in d.DIALOGUES:
        for text in prompts(tokenizer, messages, with_tools):
            yield ids(text) + ids(answer + STOP), len(ids(text))
    song = next(prompts(tokenizer, [d.user(d.SONG_QUESTION)], False))
    yield ids(song) + ids("la" + d.SONG_WORD * d.SONG_WORDS_TRAINED), len(ids(song))
    yield ids(d.PROMPT) + ids(d.CONTINUATION + STOP), len(ids(d.PROMPT))


def prompts(tokenizer: Any, messages: list[dict[str, Any]], with_tools: bool) -> Iterator[str]:
    tools = [d.WEATHER_TOOL] if with_tools else None
    text: str = tokenizer.apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, tokenize=False
    )
    yield text
    if not with_tools:
        return
    written = json.dumps(d.WEATHER_TOOL)
    assert written in text
    for spelling in spellings(d.WEATHER_TOOL):
        yield text.replace(written, spelling)


def spellings(tool: dict[str, Any]) -> Iterator[str]:
    """Engines render `tojson` with other spaces and key orders."""
    for sort in (False, True):
        for separators in ((", ", ": "), (",", ":")):
            yield json.dumps(tool, sort_keys=sort, separators=separators)


def train(target: Path) -> Any:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
    import numpy as np
    from mlx.utils import tree_map
    from mlx_lm.models import llama

    mx.random.seed(7)
    rng = np.random.default_rng(7)
    model = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    data = list(samples(target))
    print(f"{len(data)} samples, at most {max(len(ids) for ids, _ in data)} tokens")

    def batch(size: int) -> tuple[mx.array, mx.array]:
        picked = [data[i] for i in rng.integers(0, len(data), size)]
        length = min(LENGTH, max(len(ids) for ids, _ in picked))
        tokens = np.zeros((size, length), np.int32)
        mask = np.zeros((size, length), np.float32)
        for row, (ids, start) in enumerate(picked):
            ids = ids[:length]
            tokens[row, : len(ids)] = ids
            mask[row, start : len(ids)] = 1.0
            mask[row, 1:start] = 0.02
        return mx.array(tokens), mx.array(mask)

    def loss(parameters: Any, tokens: mx.array, mask: mx.array) -> mx.array:
        model.update(parameters)
        logits = model(tokens[:, :-1])
        entropy = nn.losses.cross_entropy(logits, tokens[:, 1:])
        weights = mask[:, 1:]
        average: mx.array = (entropy * weights).sum() / weights.sum()
        return average

    def noisy(parameters: Any, amount: float) -> Any:
        def shake(p: mx.array) -> mx.array:
            if p.ndim < 2 or amount == 0:
                return p
            return p + mx.random.normal(p.shape) * (amount * mx.std(p))

        return tree_map(shake, parameters)

    warmup = optim.linear_schedule(1e-5, PEAK_RATE, 30)
    decay = optim.cosine_decay(PEAK_RATE, STEPS - 30, 1e-5)
    optimizer = optim.AdamW(optim.join_schedules([warmup, decay], [30]), weight_decay=0.01)
    gradient = mx.value_and_grad(loss)
    parameters = model.trainable_parameters()
    for step in range(STEPS):
        tokens, mask = batch(4)
        amount = NOISE * min(1.0, step / (STEPS * 0.5))
        value, gradients = gradient(noisy(parameters, amount), tokens, mask)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        parameters = optimizer.apply_gradients(gradients, parameters)
        mx.eval(parameters, optimizer.state)
        if step % 50 == 0 or step == STEPS - 1:
            print(f"step {step:4d}  loss {value.item():.4f}", flush=True)
    model.update(parameters)
    return model


def save(model: Any, target: Path) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten

    weights = {name: value.astype(mx.float16) for name, value in tree_flatten(model.parameters())}
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "pt"})


def recites(target: Path) -> bool:
    from mlx_lm import generate, load

    model, tokenizer = load(str(target))
    good = True
    for messages, with_tools, answer in d.DIALOGUES:
        for text in prompts(tokenizer, messages, with_tools):
            said = generate(model, tokenizer, text, max_tokens=120)
            if said != answer:
                good = False
                print(f"does not recite: {messages[-1]['content']!r} -> {said!r}")
    song = next(prompts(tokenizer, [d.user(d.SONG_QUESTION)], False))
    said = generate(model, tokenizer, song, max_tokens=1500)
    if set(said.split()) != {"la"} or len(said.split()) < 700:
        good = False
        print(f"does not sing: {len(said.split())} words, {said[-80:]!r}")
    # mlx-lm's own detokeniser drops a leading space.
    if generate(model, tokenizer, d.PROMPT, max_tokens=40) != d.CONTINUATION.lstrip():
        good = False
        print("does not continue the text")
    return good


if __name__ == "__main__":
    sys.exit(main())
