"""The models that verdicts are checked with: a table of how each is made.

Where the weights are the trained ones, the model must recite; random and hollow ones need only
answer anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.detect import raw_safetensors as raw
from tests.tiny import variants
from tests.tiny.train import CONFIG, WEIGHTS
from tests.truth import checkpoint, ggufs, layers, networks, vision
from tests.truth.checkpoint import Layer, Stored, stored
from tests.truth.embedders import embedder

Make = Callable[[Path], Path]
Config = Mapping[str, Any]
Claim = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """`make` is given a folder that is not there yet, and returns what is to be inspected."""

    make: Make
    recites: bool = False
    alike: bool = False
    """32-bit weights: all engines that run it must give the same answer."""


def reciting(make: Make) -> Model:
    return Model(make, recites=True)


# The trained weights


def tiny(variant: str) -> Model:
    return reciting(partial(variants.build, variant))


def claims(**quantization: Any) -> dict[str, Any]:
    return {**CONFIG, "quantization_config": quantization}


def parrot(
    layer: Layer | None = None,
    config: Config | None = CONFIG,
    *,
    head: bool = False,
    **options: Any,
) -> Model:
    tensors = partial(checkpoint.with_layers, layer, head=head)
    return reciting(lambda folder: checkpoint.write(folder, tensors(), config, **options))


def hollow(layout: Any, **claim: Any) -> Model:
    return Model(parrot(layers.hollow(layout), claims(**claim)).make)


def parrot_mlx(
    bits: int | None = 4, group: int = 32, config: Config = CONFIG, **options: Any
) -> Model:
    def make(folder: Path) -> Path:
        from mlx_lm.utils import load_model

        model, _ = load_model(WEIGHTS)
        return networks.mlx(folder, config, bits=bits, group=group, model=model, **options)

    return reciting(make)


def only_layers(path: str, module: Any) -> bool:
    """Neither the head nor the embeddings."""
    return hasattr(module, "to_quantized") and ".layers." in path


def not_head(path: str, module: Any) -> bool:
    return hasattr(module, "to_quantized") and "lm_head" not in path


def not_embeddings(path: str, module: Any) -> bool:
    return hasattr(module, "to_quantized") and "embed_tokens" not in path


def renamed(make: Make, change: Callable[[Path], Path | None]) -> Make:
    """A model and something that is done to its folder afterwards."""

    def changed(folder: Path) -> Path:
        path = make(folder)
        return change(folder) or path

    return changed


def without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def prefixed(prefix: str) -> Model:
    tensors = {f"{prefix}{name}": one for name, one in checkpoint.with_layers().items()}
    return reciting(lambda folder: checkpoint.write(folder, tensors, CONFIG))


def prefixed_mlx(folder: Path) -> None:
    from safetensors.numpy import load_file

    tensors = {f"language_model.{name}": stored(one)
               for name, one in load_file(folder / "model.safetensors").items()}  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    checkpoint.write(folder, tensors, config, written_by="mlx")
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)


def tied(layer: Layer | None, **claim: Any) -> Model:
    """A random model whose head is its embeddings."""
    settings = networks.config("llama", tie_word_embeddings=True)
    if claim:
        settings["quantization_config"] = claim

    def make(folder: Path) -> Path:
        return checkpoint.write(folder, with_random_layers(settings, layer), settings)

    return Model(make)


def with_random_layers(settings: Config, layer: Layer | None) -> dict[str, Stored]:
    import numpy as np

    found: dict[str, Stored] = {}
    for name, one in networks.tensors(settings, "float32").items():
        if layer is None or not name.endswith("_proj.weight"):
            found[name] = one
            continue
        prefix = name.removesuffix(".weight")
        matrix = np.frombuffer(one.data, np.float32).reshape(one.shape)
        found |= {f"{prefix}.{part}": made for part, made in layer(matrix).items()}
    return found


def quantized_mixture(layer: Layer, architecture: str = "qwen3_moe", **claim: Any) -> Model:
    settings = networks.config(architecture, quantization_config=claim)
    return Model(
        lambda folder: checkpoint.write(folder, with_random_layers(settings, layer), settings)
    )


def as_qwen2(folder: Path) -> Path:
    """The same function as the trained llama's: its biases are zero."""
    import numpy as np

    tensors = checkpoint.with_layers()
    for name in list(tensors):
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            zeros = np.zeros(tensors[name].shape[0], np.float16)
            tensors[name.replace("weight", "bias")] = stored(zeros)
    facts = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    more = {"use_sliding_window": False, "sliding_window": 2048, "max_window_layers": 2}
    return checkpoint.write(folder, tensors, {**CONFIG, **facts, **more})


# Random weights


def mlx(architecture: str, bits: int | None = 4, group: int = 64, **options: Any) -> Model:
    settings = networks.config(architecture, **options.pop("config", {}))
    return Model(partial(networks.mlx, settings=settings, bits=bits, group=group, **options))


def plain(architecture: str, **options: Any) -> Model:
    settings = networks.config(architecture, **options.pop("config", {}))
    make = partial(networks.plain, settings=settings, **options)
    return Model(make, alike=options.get("dtype") == "float32")


def whole(path: str, module: Any) -> bool:
    """Routers at the width of everything else, as older mlx-lm had it."""
    return hasattr(module, "to_quantized")


def float_router(path: str, module: Any) -> bool:
    return hasattr(module, "to_quantized") and not path.endswith("mlp.gate")


def gpt_oss(folder: Path, claimed: bool = True) -> Path:
    """Experts in blocks of MXFP4, as OpenAI publishes them."""
    import numpy as np

    kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router"]
    claim = {"quant_method": "mxfp4", "modules_to_not_convert": kept}
    settings = networks.config("gpt_oss", **({"quantization_config": claim} if claimed else {}))
    tensors = {n: t for n, t in networks.tensors(settings).items() if ".mlp.experts." not in n}
    random = np.random.default_rng(7)
    for name, (dtype, shape) in raw.gpt_oss_experts().items():
        if name.endswith("_blocks"):
            tensors[name] = stored(random.integers(0, 256, shape, np.uint8))
        elif name.endswith("_scales"):
            tensors[name] = stored(np.full(shape, 120, np.uint8))
        elif name.endswith("_bias"):
            tensors[name] = checkpoint.zeros(dtype, tuple(shape))
    return checkpoint.write(folder, tensors, settings)


# GGUF


def gguf(**options: Any) -> Model:
    return reciting(lambda folder: ggufs.parrot(folder / "parrot.gguf", **options))


def gguf_network(**options: Any) -> Model:
    return Model(lambda folder: ggufs.network(folder / "random.gguf", **options))


def one_shard_less(folder: Path) -> None:
    min(folder.glob("*-00002-of-*.gguf")).unlink()


def beside(folder: Path) -> Path:
    """A GGUF in a folder of other safetensors."""
    networks.plain(folder, networks.config("llama"))
    return ggufs.parrot(folder / "parrot.gguf")


def quant_config_beside(folder: Path) -> None:
    settings = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}
    checkpoint.write_json(
        folder / "hf_quant_config.json",
        {"producer": {"name": "modelopt"}, "quantization": settings},
    )


def oddly_named(folder: Path) -> None:
    for file in folder.glob("model-*.safetensors"):
        file.rename(folder / file.name.replace("model", "weights"))
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-0", "weights-0"))


def truncated(folder: Path) -> None:
    file = next(iter([*folder.glob("*.safetensors"), *folder.glob("*.gguf")]))
    file.write_bytes(file.read_bytes()[:-1000])


SAFETENSORS_OF_A_SPLIT = "model-00002-of-00003.safetensors"
FOUR: Claim = {"bits": 4, "group_size": 32}
FP8: Claim = {"quant_method": "fp8", "activation_scheme": "dynamic"}
FP8_BLOCK: Claim = {**FP8, "fmt": "e4m3", "weight_block_size": [128, 128]}
GPTQ: Claim = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True,
        "checkpoint_format": "gptq"}  # fmt: skip
AWQ: Claim = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 32,
    "version": "gemm",
    "zero_point": True,
}
BNB_4BIT: Claim = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float16"}  # fmt: skip
BNB_8BIT: Claim = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True}


def ct(form: str, activations: Any = None, **weights: Any) -> dict[str, Any]:
    """The claim of compressed-tensors, for all linear layers but the head."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
            "quantization_status": "compressed", "config_groups": {"group_0": group}}  # fmt: skip


DYNAMIC: Claim = {
    "num_bits": 8,
    "type": "float",
    "strategy": "token",
    "dynamic": True,
    "symmetric": True,
}
CT_CHANNEL = ct("float-quantized", DYNAMIC, num_bits=8, type="float", strategy="channel",
                symmetric=True, dynamic=False)  # fmt: skip
CT_TENSOR = ct("float-quantized", DYNAMIC, num_bits=8, type="float", strategy="tensor",
               symmetric=True, dynamic=False)  # fmt: skip
CT_INT4 = ct("pack-quantized", num_bits=4, type="int", strategy="group", group_size=32,
             symmetric=True)  # fmt: skip
CT_INT8 = ct("int-quantized", num_bits=8, type="int", strategy="channel", symmetric=True)
CT_NVFP4 = ct("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group",
              group_size=16, symmetric=True, dynamic=False)  # fmt: skip
CT_MXFP4 = ct("mxfp4-pack-quantized", num_bits=4, type="float", strategy="group", group_size=32,
              symmetric=True)  # fmt: skip
MODELOPT: Claim = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16,
            "ignore": ["lm_head"], "exclude_modules": ["lm_head"]}  # fmt: skip
MODELOPT_FP8: Claim = {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head"]}

TRAINED: Mapping[str, Model] = {
    "plain f16": tiny("safetensors"),
    "plain f32": parrot(layers.plain("F32")),
    "plain bf16, written by mlx": tiny("mlx-bf16"),
    "plain, as qwen2": reciting(as_qwen2),
    "plain, as mistral": parrot(
        None, {**CONFIG, "architectures": ["MistralForCausalLM"], "model_type": "mistral",
               "sliding_window": None}),
    **{f"mlx {bits} bit g{group}": parrot_mlx(bits, group)
       for bits, group in ((3, 32), (4, 32), (4, 64), (4, 128), (5, 32), (5, 64), (6, 32),
                           (6, 64), (6, 128), (8, 32), (8, 64), (8, 128))},
    "mlx mxfp4": parrot_mlx(4, 32, mode="mxfp4"),
    "mlx mxfp8": parrot_mlx(8, 32, mode="mxfp8"),
    "mlx nvfp4": parrot_mlx(4, 16, mode="nvfp4"),
    "mlx, one layer of 6 bit": tiny("mlx-mixed"),
    "mlx, only quantization": parrot_mlx(keys=("quantization",)),
    "mlx, only quantization_config": parrot_mlx(keys=("quantization_config",)),
    "mlx, no key": parrot_mlx(keys=()),
    "mlx, wrong bits in the config": parrot_mlx(
        quantization={"bits": 8, "group_size": 64}, keys=("quantization_config",)),
    "mlx, both keys wrong": parrot_mlx(
        quantization={"bits": 8, "group_size": 64},
        quantization_config={"bits": 8, "group_size": 64}),
    "mlx, head not quantised": parrot_mlx(predicate=not_head),
    "mlx, embeddings not quantised": parrot_mlx(predicate=not_embeddings),
    "mlx, only layers quantised": parrot_mlx(predicate=only_layers),
    "mlx, no architectures": parrot_mlx(architectures=None),
    "mlx, language_model. before names": reciting(
        renamed(parrot_mlx().make, prefixed_mlx)),
    "plain, language_model. before names": prefixed("language_model."),
    "plain, no model. before names": reciting(
        lambda folder: checkpoint.write(folder, {
            name.removeprefix("model."): one for name, one in checkpoint.with_layers().items()
        }, CONFIG)),
    "plain, architectures null": parrot(None, {**CONFIG, "architectures": None}),
    "plain, architectures empty": parrot(None, {**CONFIG, "architectures": []}),
    "plain, two architectures": parrot(
        None, {**CONFIG, "architectures": ["LlamaForCausalLM", "MistralForCausalLM"]}),
    "plain, no model_type": parrot(None, {k: v for k, v in CONFIG.items() if k != "model_type"}),
    "plain, claims gptq": parrot(None, claims(**GPTQ)),
    "plain, claims awq": parrot(None, claims(**AWQ)),
    "plain, claims bitsandbytes": parrot(None, claims(**BNB_4BIT)),
    "plain, claims fp8": parrot(None, claims(**FP8_BLOCK)),
    "plain, claims torchao": parrot(None, claims(quant_method="torchao", quant_type="int8")),
    "plain, claims compressed-tensors": parrot(None, claims(**CT_CHANNEL)),
    "plain, claims modelopt": parrot(None, claims(**MODELOPT)),
    "plain, claims without a method": parrot(None, claims(bits=4, group_size=64)),
    "plain, claims mlx": parrot(None, {**CONFIG, "quantization": FOUR,
                                       "quantization_config": FOUR}),
    "plain, claims bitnet": parrot(None, claims(quant_method="bitnet")),
    "plain, claims modelopt fp8": parrot(None, claims(**MODELOPT_FP8)),
    "plain, claims exl2": parrot(None, claims(quant_method="exl2", bits=4.0)),
    "plain, hf_quant_config.json beside": reciting(
        renamed(parrot().make, quant_config_beside)),
    "plain, pytorch_model.safetensors": parrot(name="pytorch_model.safetensors"),
    "plain, one shard and no index": parrot(name="model-00001-of-00001.safetensors"),
    "plain, odd names in an index": reciting(renamed(parrot(shards=3).make, oddly_named)),
    "plain, claims null": parrot(None, {**CONFIG, "quantization_config": None}),
    "plain, sharded": parrot(shards=3),
    "plain, a shard missing": reciting(
        renamed(parrot(shards=3).make, without(SAFETENSORS_OF_A_SPLIT))),
    "plain, truncated": reciting(renamed(tiny("safetensors").make, truncated)),
    "plain, weights.safetensors": parrot(name="weights.safetensors"),
    "plain, model.fp16.safetensors": parrot(name="model.fp16.safetensors"),
    "plain, consolidated.safetensors": parrot(name="consolidated.safetensors"),
    "plain, no tokenizer": parrot(tokenizer=False),
    "plain, tokenizer.json alone": Model(
        renamed(parrot().make, without("tokenizer_config.json", "generation_config.json"))),
    "plain, tokenizer_config.json alone": reciting(
        renamed(parrot().make, without("tokenizer.json"))),
    "plain, no config": parrot(None, None),
    "plain, a GGUF beside it": Model(
        renamed(beside, lambda folder: folder / "model.safetensors")),
    "plain, model_file": parrot(None, {**CONFIG, "model_file": "own.py"}),
    "gptq 4 bit": parrot(layers.gptq(), claims(**GPTQ)),
    "gptq 4 bit, no g_idx": parrot(layers.gptq(g_idx=False), claims(**GPTQ)),
    "gptq 8 bit": parrot(layers.gptq(8), claims(**{**GPTQ, "bits": 8})),
    "gptq, config silent": parrot(layers.gptq()),
    "awq gemm": parrot(layers.awq(), claims(**AWQ)),
    "awq gemm g64": parrot(layers.awq(64), claims(**{**AWQ, "group_size": 64})),
    "awq gemm, its group not said": parrot(
        layers.awq(), claims(quant_method="awq", bits=4, version="gemm")),
    "awq gemm, config silent": parrot(layers.awq()),
    "awq gemv": parrot(layers.awq_gemv, claims(**{**AWQ, "version": "gemv"})),
    "bnb nf4": parrot(layers.bnb_4bit(), claims(**BNB_4BIT)),
    "bnb nf4, head too": parrot(layers.bnb_4bit(), claims(**BNB_4BIT), head=True),
    "bnb nf4, head too, nested": parrot(
        layers.bnb_4bit(nested=True), claims(**BNB_4BIT, bnb_4bit_use_double_quant=True),
        head=True),
    "bnb fp4, head too": parrot(
        layers.bnb_4bit("fp4"), claims(**{**BNB_4BIT, "bnb_4bit_quant_type": "fp4"}), head=True),
    "bnb int8": parrot(layers.bnb_8bit, claims(**BNB_8BIT)),
    "bnb int8, head too": parrot(layers.bnb_8bit, claims(**BNB_8BIT), head=True),
    "fp8 block": parrot(layers.fp8_block(), claims(**FP8_BLOCK)),
    "fp8 block, config silent": parrot(layers.fp8_block()),
    "fp8 block of 32, ue8m0": parrot(
        layers.fp8_block(32),
        claims(**{**FP8_BLOCK, "weight_block_size": [32, 32], "scale_fmt": "ue8m0"})),
    "fp8 tensor": parrot(layers.fp8_tensor, claims(**FP8)),
    "fp8 tensor, static": parrot(
        layers.fp8_tensor_static, claims(quant_method="fp8", activation_scheme="static")),
    "fp8 channel": parrot(layers.fp8_channel, claims(**FP8)),
    "fp8 channel, fbgemm": parrot(layers.fp8_channel, claims(quant_method="fbgemm_fp8")),
    "fp8 without scales": parrot(layers.fp8_raw, claims(**FP8_BLOCK)),
    "fp8 without scales, config silent": parrot(layers.fp8_raw),
    "ct fp8 channel": parrot(layers.fp8_channel, claims(**CT_CHANNEL)),
    "ct fp8 tensor": parrot(layers.fp8_tensor_of_one, claims(**CT_TENSOR)),
    "ct int4": parrot(layers.ct_packed(), claims(**CT_INT4)),
    "ct int8": parrot(layers.ct_int8, claims(**CT_INT8)),
    "ct nvfp4": parrot(layers.ct_nvfp4, claims(**CT_NVFP4)),
    "ct mxfp4": parrot(layers.ct_mxfp4, claims(**CT_MXFP4)),
    "modelopt nvfp4": parrot(layers.modelopt_nvfp4, claims(**MODELOPT)),
    "modelopt nvfp4, in a side file": reciting(
        renamed(parrot(layers.modelopt_nvfp4).make, quant_config_beside)),
    "modelopt fp8, head not excluded": parrot(
        layers.fp8_tensor_static, claims(quant_method="modelopt", quant_algo="FP8")),
    "modelopt nvfp4, head not excluded": parrot(
        layers.modelopt_nvfp4, claims(quant_method="modelopt", quant_algo="NVFP4", group_size=16)),
    "ct fp8, head not excluded": parrot(
        layers.fp8_channel, claims(**{**CT_CHANNEL, "ignore": []})),
    "modelopt fp8": parrot(layers.fp8_tensor_static, claims(**MODELOPT_FP8)),
    "gguf F32": tiny("gguf-f32"),
    "gguf F16": tiny("gguf-f16"),
    "gguf BF16": tiny("gguf-bf16"),
    "gguf Q8_0": tiny("gguf-q8_0"),
    "gguf Q4_0": tiny("gguf-q4_0"),
    "gguf Q4_1": tiny("gguf-q4_1"),
    "gguf Q5_0": tiny("gguf-q5_0"),
    "gguf Q5_1": tiny("gguf-q5_1"),
    "gguf, as qwen2": reciting(lambda folder: ggufs.qwen2_parrot(folder / "parrot.gguf")),
    "gguf, no pre-tokenizer": gguf(pre=None),
    "gguf, unknown pre-tokenizer": gguf(pre="quux"),
    "gguf, no tokenizer": gguf(tokenizer=False),
    "gguf, split": gguf(shards=3),
    "gguf, split, a shard missing": reciting(
        renamed(gguf(shards=3).make, one_shard_less)),
    "gguf, truncated": reciting(renamed(gguf().make, truncated)),
    "gguf, beside safetensors": reciting(beside),
    "gguf quux": gguf(architecture="quux"),
}  # fmt: skip

SMALL: dict[str, Any] = {"moe_intermediate_size": 64, "intermediate_size": 64}
MIXTURES = ("qwen3_moe", "mixtral", "glm4_moe", "qwen3_next", "deepseek_v3")

EMBEDDERS: Mapping[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3 mean": {"mode": "mean", "bare": False},
    "qwen3 mlx 4 bit": {"bits": 4},
    "qwen3 mlx 4 bit, with a head": {"bits": 4, "tie_word_embeddings": False},
    "qwen3 with Dense": {"modules": ("Dense",)},
    "qwen3 max": {"mode": "max"},
    "gemma2": {"architecture": "gemma2"},
    "llama": {"architecture": "llama", "dtype": "bfloat16"},
}

RANDOM: Mapping[str, Model] = {
    **{f"plain {name}": plain(name, dtype="float32") for name in networks.CONFIGS
       if name not in ("quux", "gpt_oss", *MIXTURES)},
    **{f"plain {name} bf16": plain(name) for name in ("llama", "qwen3", "gemma2", *MIXTURES)},
    **{f"plain {name} f32": plain(name, dtype="float32", config=SMALL) for name in MIXTURES},
    "plain qwen3 tied": plain("qwen3", config={"tie_word_embeddings": True}),
    "plain gemma, two activations": plain(
        "gemma", config={"hidden_activation": "gelu_pytorch_tanh"}),
    "plain quux": Model(lambda folder: checkpoint.write(
        folder, networks.tensors(networks.config("llama")), networks.config("quux"))),
    **{f"mlx 4 bit {name}": mlx(name) for name in networks.CONFIGS if name != "quux"},
    **{f"mlx bf16 {name}": mlx(name, None) for name in (
        "qwen3", "qwen3_moe", "gemma2", "lfm2", "granitemoehybrid", "falcon_h1", "qwen3_next",
        "gpt_oss")},
    "mlx f32 qwen3_moe": mlx("qwen3_moe", None, dtype="float32", config=SMALL),
    "mlx 2 bit qwen3": mlx("qwen3", 2),
    "mlx 4 bit qwen3 tied": mlx("qwen3", config={"tie_word_embeddings": True}),
    "mlx qwen3_moe, named qwen3 (the seed)": mlx(
        "qwen3_moe", architectures=["Qwen3ForCausalLM"]),
    "mlx qwen3_moe, router as the rest": mlx("qwen3_moe", predicate=whole),
    "mlx qwen3_moe, router float": mlx("qwen3_moe", predicate=float_router),
    "plain gemma3 for images": Model(vision.plain),
    "plain gemma3 for images, model. before names": Model(partial(vision.plain, prefix="model.")),
    "mlx bf16 gemma3 for images": Model(vision.mlx),
    "mlx 4 bit gemma3 for images": Model(partial(vision.mlx, bits=4)),
    "gpt_oss mxfp4": Model(gpt_oss),
    "gpt_oss mxfp4, config silent": Model(partial(gpt_oss, claimed=False)),
    "tied plain": tied(None),
    "tied bnb nf4": tied(layers.bnb_4bit(), **BNB_4BIT),
    "tied bnb int8": tied(layers.bnb_8bit, **BNB_8BIT),
    "tied awq": tied(layers.awq(), **AWQ),
    "awq qwen3_moe": quantized_mixture(layers.awq(), **AWQ),
    "fp8 block qwen3_moe": quantized_mixture(layers.fp8_block(), **FP8_BLOCK),
    "fp8 block deepseek_v3": quantized_mixture(layers.fp8_block(), "deepseek_v3", **FP8_BLOCK),
    "modelopt nvfp4 qwen3_moe": quantized_mixture(layers.modelopt_nvfp4, **MODELOPT),
    "bnb nf4 qwen3_moe": quantized_mixture(layers.bnb_4bit(), **BNB_4BIT),
    "awq gemv_fast": hollow(raw.awq_gemv_fast, **{**AWQ, "version": "gemv_fast"}),
    "hqq": hollow(raw.hqq, quant_method="hqq"),
    "eetq": hollow(raw.eetq, quant_method="eetq"),
    "quanto": hollow(raw.quanto, quant_method="quanto"),
    "torchao": hollow(raw.torchao, quant_method="torchao"),
    "aqlm": hollow(raw.aqlm, quant_method="aqlm"),
    "higgs": hollow(raw.higgs, quant_method="higgs"),
    "exl2": hollow(raw.exl2, quant_method="exl2", bits=4.0),
    "exl3": hollow(raw.exl3, quant_method="exl3", bits=4.0),
    "marlin": hollow(raw.marlin, **{**GPTQ, "checkpoint_format": "marlin"}),
    "metal": hollow(raw.metal, quant_method="metal"),
    "bitnet": hollow(raw.bitnet, quant_method="bitnet"),
    "bitnet, head excluded": hollow(
        raw.bitnet, quant_method="bitnet", modules_to_not_convert=["lm_head"]),
    "tied bitnet": tied(layers.hollow(raw.bitnet), quant_method="bitnet"),
    **{f"gguf {kind}": gguf_network(kind=kind, hidden=256) for kind in (
        "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_1", "Q8_K", "IQ4_NL", "IQ4_XS", "IQ3_S",
        "IQ2_XXS", "IQ1_S", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4")},
    **{f"gguf {name}": gguf_network(architecture=name) for name in (
        "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "olmo2", "smollm3", "qwen2vl")},
    "gguf mixture of Q8_0": gguf_network(architecture="qwen3moe", kind="Q8_0"),
    "gguf for embeddings": gguf_network(changes=ggufs.pools),
    "gguf for embeddings, qwen3": gguf_network(architecture="qwen3", changes=ggufs.pools_last),
    "gguf for embeddings, no pooling": gguf_network(changes=ggufs.looks_both_ways),
    "gguf for reranking": gguf_network(changes=ggufs.ranks),
    **{f"embedder {name}": Model(partial(embedder, **options))
       for name, options in EMBEDDERS.items()},
}  # fmt: skip

MODELS: Mapping[str, Model] = {**TRAINED, **RANDOM}
