from __future__ import annotations

import subprocess
import sys

import pytest

from backends.mlx import library


def test_architectures_are_read_without_importing_one() -> None:
    folder = library.folder()
    assert folder is not None
    supported = library.supported(folder)
    assert supported.module("llama") == "llama"
    assert supported.module("mistral") == "llama"
    assert supported.module("qwen3_moe") == "qwen3_moe"
    assert supported.module("whisper") is None
    assert supported.module("cache") is None


def test_importing_it_leaves_the_limit_of_open_files_alone() -> None:
    code = (
        "import resource; from backends.mlx import library\n"
        "before = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "library.load('mlx_lm.utils')\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_module_that_ends_the_process_is_an_import_error() -> None:
    with pytest.raises(ImportError):
        library.load("mlx_lm.models.olmo")


def test_the_backend_imports_no_mlx_before_a_model_is_loaded() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from backends.mlx.backend import MLXBackend\n"
        "MLXBackend().installation()\n"
        "assert not {'mlx', 'mlx_lm', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_model_that_would_end_the_process_is_none() -> None:
    folder = library.folder()
    assert folder is not None
    assert library.supported(folder).module("olmo") is None


def test_a_module_is_asked_for_the_words_of_its_code() -> None:
    folder = library.folder()
    assert folder is not None
    supported = library.supported(folder)
    assert supported.mentions("gemma3", "language_model")
    assert not supported.mentions("llama", "language_model")
    assert not supported.mentions("quux", "model")


def test_what_every_model_needs_is_imported_once_and_not_collected_again() -> None:
    code = (
        "import gc; from backends.mlx import library\n"
        "library.settle()\n"
        "frozen = gc.get_freeze_count()\n"
        "assert frozen > 50_000, frozen\n"
        "library.settle()\n"
        "assert gc.get_freeze_count() == frozen\n"
        "from mlx_lm import generate, utils\n"
        "from mlx_lm.models import cache\n"
        "assert len(gc.get_objects()) < 5_000, len(gc.get_objects())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
