"""Experiment files: formats, overrides, and what a mistake is answered with."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import yaml

from tfmtl.errors import ConfigError
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import (
    apply_override,
    dump_experiment,
    load_experiment,
    parse_experiment,
    read_document,
)


def _write(folder: pathlib.Path, name: str, text: str) -> pathlib.Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _toml(document: dict[str, Any]) -> str:
    """The document as TOML: tables of plain values, everything nested inline."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f'"{k}" = {value(v)}' for k, v in item.items()) + "}"
        if isinstance(item, list):
            return "[" + ", ".join(value(v) for v in item) + "]"
        return json.dumps(item)

    return "\n".join(f"{key} = {value(item)}" for key, item in document.items())


def test_the_three_formats_give_the_same_experiment(tmp_path, document):
    files = [
        _write(tmp_path, "e.yaml", yaml.safe_dump(document)),
        _write(tmp_path, "e.yml", yaml.safe_dump(document)),
        _write(tmp_path, "e.json", json.dumps(document)),
        _write(tmp_path, "e.toml", _toml(document)),
    ]
    first, *others = [load_experiment(file) for file in files]
    assert first.dataset.task_names == ("click", "buy", "stay")
    assert all(other == first for other in others)


def test_side_tables_are_found_beside_the_file(tmp_path, document):
    file = _write(tmp_path, "e.yaml", yaml.safe_dump(document))
    path = load_experiment(file).dataset.side_tables["text"].path
    assert path == str((tmp_path / "text.parquet").resolve())
    document["dataset"]["side_tables"]["text"]["path"] = "/data/text.parquet"
    file = _write(tmp_path, "e.yaml", yaml.safe_dump(document))
    assert load_experiment(file).dataset.side_tables["text"].path == (
        "/data/text.parquet"
    )


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.5e+2", "-2e4", "1_000e-6"])
def test_a_float_without_a_point_is_a_number(tmp_path, text):
    document = read_document(_write(tmp_path, "e.yaml", f"rate: {text}\n"))
    assert document["rate"] == float(text)
    assert isinstance(yaml.safe_load("rate: 1e-3")["rate"], str), "the trap is gone"


@pytest.mark.parametrize("text", ["e3", "1e", "v1e-3", "'1e-3'"])
def test_what_only_looks_like_a_float_stays_text(tmp_path, text):
    document = read_document(_write(tmp_path, "e.yaml", f"rate: {text}\n"))
    assert document["rate"] == text.strip("'")


def test_merge_keys_still_work(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n"
    assert read_document(_write(tmp_path, "e.yaml", text))["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.yaml", "name: a\nname: b\n", "the key 'name' stands twice"),
        ("e.yaml", "a:\n  b: 1\n  b: 2\n", "the key 'b' stands twice"),
        ("e.yaml", "name: [1, 2\n", "does not parse"),
        ("e.yaml", "? [1, 2]\n: 3\n", "a key must be a plain value"),
        ("e.yaml", "!!python/object/apply:os.getcwd []\n", "does not parse"),
        ("e.yaml", "- 1\n- 2\n", "must hold a mapping"),
        ("e.yaml", "", "must hold a mapping"),
        ("e.json", '{"name": }', "does not parse"),
        ("e.toml", "name = \n", "does not parse"),
        ("e.ini", "name = 1\n", "must end in one of"),
    ],
)
def test_files_that_do_not_parse(tmp_path, name, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_experiment(_write(tmp_path, name, text))
    assert name in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read.*nowhere\.yaml.*No such file"):
        load_experiment(tmp_path / "nowhere.yaml")


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_bytes(b"\xff\xfe\x00name: x")
    with pytest.raises(ConfigError, match="does not parse"):
        load_experiment(path)


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("seed=11", lambda e: e.seed, 11),
        ("training.batch_size=512", lambda e: e.training.batch_size, 512),
        (
            "optimizers.default.learning_rate=3e-4",
            lambda e: e.optimizers["default"].learning_rate,
            3e-4,
        ),
        ("model.class=SharedBottom", lambda e: e.model.class_name, "SharedBottom"),
        ("model.config.num_experts=[8]", lambda e: e.model.config["num_experts"], [8]),
        (
            "dataset.tasks.buy.role=auxiliary",
            lambda e: e.dataset.tasks[1].role,
            "auxiliary",
        ),
        ("dataset.tasks.0.weight=w", lambda e: e.dataset.tasks[0].weight, "w"),
        ("dataset.tasks.-1.role=main", lambda e: e.dataset.tasks[2].role, "main"),
        (
            "dataset.features.history.columns.age.dim=3",
            lambda e: e.dataset.features[3].columns[1].dim,
            3,
        ),
        (
            "dataset.scenario.values.1=live",
            lambda e: e.dataset.scenario_values,
            ("home", "live"),
        ),
        ("training.patience=null", lambda e: e.training.patience, None),
    ],
)
def test_overrides(tmp_path, document, override, read, value):
    document["optimizers"] = {"default": {"class": "Adam"}}
    file = _write(tmp_path, "e.yaml", yaml.safe_dump(document))
    assert read(load_experiment(file)) != value
    assert read(load_experiment(file, [override])) == value


def test_only_the_first_equals_sign_divides(document):
    apply_override(document, "dataset.tasks.0.label=rating == 4")
    assert parse_experiment(document).dataset.tasks[0].label == "rating == 4"


def test_later_overrides_win(document):
    apply_override(document, "seed=1")
    apply_override(document, "seed=2")
    assert document["seed"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", r"must be dotted\.path=value.*'seed'"),
        ("=3", r"must be dotted\.path=value"),
        ("seed.deep=1", "a plain value"),
        (
            "dataset.tasks.byu.role=main",
            r"names no item of the list; items: \['click', 'buy', 'stay'\]",
        ),
        ("dataset.tasks.7.role=main", "names no item of the list"),
        ("dataset.scenario.values.5=x", "items: 0 to 1"),
        ("seed=[1", "the value of 'seed=\\[1' does not parse"),
    ],
)
def test_overrides_that_lead_nowhere(document, override, message):
    with pytest.raises(ConfigError, match=message):
        apply_override(document, override)
        parse_experiment(document)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("trainig", r"trainig: unknown key, did you mean 'training'\?; legal keys:"),
        ("training.batchsize", r"unknown key, did you mean 'batch_size'\?"),
        ("dataset.keys.users", r"unknown key, did you mean 'user'\?"),
        ("dataset.tasks.0.lable", "dataset.tasks.0.lable: unknown key"),
        ("dataset.features.0.dims", r"dataset\.features\.0.*dims: unknown key"),
    ],
)
def test_unknown_keys_are_told_with_the_nearest(document, path, message):
    node: Any = document
    *way, last = path.split(".")
    for key in way:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    node[last] = 1
    with pytest.raises(ConfigError, match=message):
        parse_experiment(document, "file.yaml")


def test_every_error_is_told_at_once(document):
    document["seed"] = "x"
    document["training"] = {"epochs": 0}
    with pytest.raises(ConfigError) as caught:
        parse_experiment(document, "file.yaml")
    text = str(caught.value)
    assert text.startswith("file.yaml has 2 error(s):")
    assert "seed: " in text and "Received: 'x'" in text
    assert "training.epochs: " in text and "Received: 0" in text
    assert caught.value.exit_code == 2


def test_long_values_are_cut_in_messages(document):
    document["seed"] = "x" * 10_000_000
    with pytest.raises(ConfigError) as caught:
        parse_experiment(document)
    assert len(str(caught.value)) < 1000


def test_dump_and_load_round_trip(tmp_path, document):
    first = parse_experiment(document)
    file = _write(tmp_path, "e.yaml", dump_experiment(first))
    second = load_experiment(file)
    side = second.dataset.side_tables["text"].path
    assert side == str((tmp_path / "text.parquet").resolve())
    document["dataset"]["side_tables"]["text"]["path"] = side
    assert second == parse_experiment(document)
    assert "class: LazyAdam" in dump_experiment(first), "defaults are written out"


def test_the_json_schema_describes_experiment_files(document):
    schema = Experiment.model_json_schema(by_alias=True)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "dataset", "model"}
    assert set(document) <= set(schema["properties"])
    component = schema["$defs"]["ComponentSpec"]
    assert "class" in component["properties"]
    assert "class_name" not in component["properties"]
    kinds = schema["$defs"]["DatasetSpec"]["properties"]["features"]["items"]
    assert set(kinds["discriminator"]["mapping"]) == {
        "categorical",
        "multivalent",
        "sequence",
        "numeric",
        "time",
        "vector",
        "cross",
    }
    references = _references(schema)
    assert references and all(
        r.removeprefix("#/$defs/") in schema["$defs"] for r in references
    )
    described = schema["$defs"]["TrainingSpec"]["properties"]["precision"]
    assert "bfloat16" in described["description"]


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*[_references(v) for v in node.values()])
    if isinstance(node, list):
        return set().union(*[_references(v) for v in node])
    return set()


def test_an_override_of_one_optimizer_keeps_the_other_defaults(tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text(
        "name: e\nmodel: {class: MMoE}\ndataset:\n"
        "  features: [{name: a, kind: categorical}]\n"
        "  tasks: [{name: t, label: t}]\n"
        "  split: {by: hash, column: a}\n"
    )
    found = load_experiment(file, ["optimizers.default.learning_rate=0.5"]).optimizers
    assert found["default"].learning_rate == 0.5
    assert found["embedding"].class_name == "LazyAdam"
