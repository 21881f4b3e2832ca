"""Errors name the line of the experiment file that is at fault."""

from __future__ import annotations

import pathlib
import textwrap

import pytest

from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.lines import Lines, naming_lines, places_in
from tfmtl.schema.load import load_experiment

YAML = """\
    name: shop
    seed: 3
    dataset:
      features:
        - {name: a, kind: categorical}
        - name: price
          kind: numeric
          transform: log1p
      tasks:
        - {name: click, label: c}
        - {name: like, label: l}
      split: {by: hash, column: a}
    model: {class: MMoE}
    training:
      epochs: 3
      monitor: mean/auc
    tuning:
      space:
        balancer.config.weights.like: {type: float, min: 0.1, max: 10}
        optimizers.default.learning_rate:
          type: float
          min: 0.001
          max: 0.1
          scale: log
      constraints:
        - like/auc >= 0.5
"""
TOML = """\
    name = "shop"  # a comment
    seed = 3
    training = {epochs = 3, monitor = "mean/auc"}

    [dataset]
    split = {by = "hash", column = "a"}

    [[dataset.features]]
    name = "a"
    kind = "categorical"
    [[dataset.features]]
    name = "price"
    kind = "numeric"
    transform = "log1p"

    [[dataset.tasks]]
    name = "click"
    label = "c"
    [[dataset.tasks]]
    name = "like"
    label = "l"

    [model]
    class = "MMoE"

    [tuning.space]
    "balancer.config.weights.like" = {type = "float", min = 0.1, max = 10}

    [tuning.space."optimizers.default.learning_rate"]
    type = "float"
    min = 0.001
    max = 0.1
    scale = "log"
"""


@pytest.fixture
def write(tmp_path):
    """Writes an experiment file with one line changed."""

    def written(old: str = "", new: str = "", name: str = "e.yaml") -> pathlib.Path:
        text = textwrap.dedent(TOML if name.endswith("toml") else YAML)
        assert old in text
        path = tmp_path / name
        path.write_text(text.replace(old, new, 1))
        return path

    return written


RATE = ("tuning", "space", "optimizers.default.learning_rate")
PLACES = [
    (("seed",), 2, 2),
    (("training", "monitor"), 16, 3),
    (("training", "patience"), 14, 3),
    (("dataset", "features", 1, "numeric", "transform"), 8, 14),
    (("dataset", "features", "price", "transform"), 8, 14),
    (("dataset", "features", "-1"), 6, 11),
    (("dataset", "tasks", 1, "label"), 11, 21),
    (("tuning", "space", "balancer.config.weights.like", "float", "min"), 19, 27),
    ((*RATE, "float", "min"), 22, 31),
    ((*RATE, "float", "step"), 20, 29),
    (("tuning", "top"), 17, 26),
    (("version",), None, None),
    (("optimizers", "default", "name"), None, None),
    ((), None, None),
]


@pytest.mark.parametrize(("place", "in_yaml", "in_toml"), PLACES)
def test_the_line_of_a_place(write, place, in_yaml, in_toml):
    assert Lines.of(write()).line(place) == in_yaml
    toml = Lines.of(write(name="e.toml"))
    if place != ("tuning", "top"):  # TOML has no line for a table that is implied
        assert toml.line(place) == in_toml


def test_json_is_read_as_yaml(tmp_path):
    path = tmp_path / "e.json"
    path.write_text('{\n  "name": "a",\n  "training": {\n    "epochs": 0\n  }\n}\n')
    assert Lines.of(path).line(("training", "epochs")) == 4


def test_merged_and_recursive_nodes(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("a: &a\n  x: 1\n  y: 2\nb:\n  <<: *a\n  y: 3\nc: &c\n  d: *c\n")
    lines = Lines.of(path)
    assert [lines.line(("b", k)) for k in "xy"] == [2, 6]
    assert lines.line(("c", "d", "d", "d")) == 8


@pytest.mark.parametrize("name", ["none.yaml", "broken.yaml", "broken.toml"])
def test_what_cannot_be_read_has_no_lines(tmp_path, name):
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "broken.toml").write_bytes(b"\xff\xfe")
    assert Lines.of(tmp_path / name).line(("a",)) is None


ERRORS = [
    ("epochs: 3", "epochs: 0", [15]),
    ("epochs: 3", "epoch: 3", [15]),
    ("kind: numeric", "kind: nummeric", [6]),
    ("mean/auc", "mean/ac", [16]),
    ("label: c}", "lable: c}", [10, 10]),
    ("transform: log1p", "transform: log1p\n      buckets: 3", [6]),
    ("min: 0.1,", "min: 20,", [19]),
    ("min: 0.001", "min: 0", [22]),
    ("min: 0.001", "min: .nan", [22]),
    ("min: 0.001", "min: none", [22]),
    ("min: 0.001", "mim: 0.001", [20, 22]),
    ("type: float\n", "type: double\n", [20]),
    ("weights.like", "weights.lke", [19]),
    ("like/auc >= 0.5", "like/auc >= 1.5", [26]),
    ("like/auc >= 0.5", "like/acu >= 0.5", [26]),
    ("like/auc >= 0.5", "like/auc > 0.5", [26]),
]


@pytest.mark.parametrize(("old", "new", "lines"), ERRORS)
def test_errors_name_their_lines(write, old, new, lines):
    load_experiment(write())
    with pytest.raises(ConfigError) as caught:
        load_experiment(write(old, new))
    told = str(caught.value).split("\n")[1:]
    assert len(told) == len(lines)
    for text, line in zip(told, lines, strict=True):
        assert text.endswith(f" (line {line})"), text


def test_what_an_override_sets_has_no_line(write):
    overrides = ["training.epochs=0", "dataset.tasks.like.label=a b", "seed=x"]
    with pytest.raises(ConfigError) as caught:
        load_experiment(write("monitor: mean/auc", "patience: 0"), overrides)
    told = str(caught.value).split("\n")[1:]
    assert len(told) == 4
    lines = {text.partition(":")[0].strip(): "(line" in text for text in told}
    assert lines == {
        "seed": False,
        "training.epochs": False,
        "training.patience": True,
        "dataset.tasks.1.label": False,
    }


def test_errors_from_elsewhere_get_the_lines_of_their_places(write):
    path = write()
    with pytest.raises(ConfigError) as caught, naming_lines(path):
        raise ConfigError(
            "model: 2\n  a: b\n  c", [("seed",), ("model", "config", "x")]
        )
    assert str(caught.value) == "model: 2\n  a: b (line 2)\n  c (line 13)"
    with pytest.raises(ConfigError, match=r"^no place$"), naming_lines(path):
        raise ConfigError("no place")
    with pytest.raises(DataError, match=r"^other$"), naming_lines(path):
        raise DataError("other")


def test_a_message_names_its_place():
    assert places_in("`training.monitor` must be", ()) == ("training", "monitor")
    assert places_in("`at` must hold", ("evaluation",)) == ("evaluation", "at")
    assert places_in("`a.b` is", ("a",)) == ("a", "b")
    assert places_in("task 'x': no", ()) == ("dataset", "tasks", "x")
    assert places_in("feature 'x' is", ("dataset",)) == ("dataset", "features", "x")
    assert places_in("anything", ("a", 1)) == ("a", 1)
