from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import SettingsError
from router.model_settings import MODEL_OPTIONS, ModelSettings, model_settings
from router.settings import load
from router.toml_file import Place

EXAMPLE = Path(__file__).parents[2] / "configs" / "router.toml"


def read(text: str, folder: Path) -> tuple[ModelSettings, ...]:
    file = folder / "router.toml"
    file.write_text(text)
    return load({"config": str(file)}, {}).models


def test_a_file_says_things_of_single_models(tmp_path: Path) -> None:
    text = """
        [models."org/a"]
        aliases = ["gpt-4o", "b"]
        engine = "mlx"
        context-length = "8k"
        idle-seconds = 60
        pin = true
        [models.c]
        preload = true
    """
    assert read(text, tmp_path) == (
        ModelSettings(
            id="org/a",
            aliases=("gpt-4o", "b"),
            engine="mlx",
            context_length=8192,
            idle_seconds=60.0,
            pin=True,
        ),
        ModelSettings(id="c", preload=True),
    )


def test_what_a_file_says_of_an_engine_is_a_wish_and_a_flag_goes_before_it(tmp_path: Path) -> None:
    file = tmp_path / "router.toml"
    file.write_text('[models.a]\nengine = "mlx"\n[models.b]\nengine = "mlx"\n')
    settings = load({"config": str(file), "engine": ["a=mistral.rs"]}, {})
    assert settings.wishes.models == {"a": "mistral.rs", "b": "mlx"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models = 1", "must be tables"),
        ("[models]\na = 1", "needs quotes"),
        ("[models.org/a]\n", "not a TOML file"),
        ("[models.a]\npinn = true", "did you mean 'pin'?"),
        ("\n[models.a]\nxyzzy = true", "router.toml (line 3) has 'xyzzy', which is not an option."),
        ("[models.a]\nengine = 'vllm'", "takes one of mlx, llama.cpp, mistral.rs"),
        ("[models.a]\ncontext-length = 0", "context-length in [models.a] of"),
        ("[models.a]\ncontext-length = 0", "router.toml (line 2) takes a number of tokens"),
        ("[models.a]\npin = 'perhaps'", "takes yes or no"),
        ("prot = 1", "did you mean 'port'?"),
    ],
)
def test_what_cannot_be_honoured_is_named_with_its_place(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=r"router\.toml") as refused:
        read(text, tmp_path)
    assert words in str(refused.value)


def test_the_example_shows_every_setting_of_a_model() -> None:
    shown = EXAMPLE.read_text().partition("#[models.")[2]
    assert all(f"#   {one.name.replace('_', '-')} = " in shown for one in MODEL_OPTIONS)


def test_the_example_of_a_model_loads_when_it_is_switched_on(tmp_path: Path) -> None:
    example = EXAMPLE.read_text().partition("#[models.")[2].splitlines()
    switched_on = [line[4:] for line in example if " = " in line]
    (model,) = read("\n".join(["[models.'org/my-model']", *switched_on]), tmp_path)
    default = ModelSettings(id=model.id)
    assert all(getattr(model, o.name) != getattr(default, o.name) for o in MODEL_OPTIONS)


def test_nothing_said_changes_nothing() -> None:
    assert model_settings({}, Place("router.toml")) == ()
