"""`tfmtl tune`: what it refuses before it trains anything, and `--choose`."""

from __future__ import annotations

import pytest
import yaml

from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import dump_experiment
from tfmtl.testing.tiny import DATASET, tiny_dataset
from tfmtl.tuning.records import TrialRecord

DOCUMENT = {
    "name": "tiny",
    "dataset": DATASET,
    "model": {"class": "SharedBottom"},
    "training": {"batch_size": 50},
}
RATE = {"type": "float", "min": 1e-3, "max": 0.1, "scale": "log"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune") / "dataset"
    folder.mkdir()
    tiny_dataset(folder)
    return folder


@pytest.fixture
def tune(tfmtl, dataset, tmp_path):
    def call(tuning, *more):
        file = tmp_path / "experiment.yaml"
        document = DOCUMENT | ({"tuning": tuning} if tuning else {})
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        lines = file.read_text().splitlines()
        result = tfmtl(
            "tune", file, "--dataset", dataset, "--directory", tmp_path / "s", *more
        )
        assert not (tmp_path / "s").exists()
        return result, lines

    return call


@pytest.mark.parametrize(
    ("tuning", "key", "told"),
    [
        ({"space": {"model.config.units": RATE}}, "model.config.units", "unknown key"),
        (
            {"space": {"optimizers.embeding.learning_rate": RATE}},
            "optimizers.embeding.learning_rate",
            "no group of variables needs",
        ),
        (
            {"space": {"optimizers.default.learning_rate": {**RATE, "max": 1e-4}}},
            "max",
            "max",
        ),
        (
            {"space": {"optimizers.default.learning_rate": {**RATE, "min": "low"}}},
            "min",
            "number",
        ),
        (
            {
                "space": {"optimizers.default.learning_rate": RATE},
                "constraints": ["like/auc >= 1.2"],
            },
            "- like/auc >= 1.2",
            "1.2",
        ),
    ],
)
def test_a_bad_space_is_told_with_its_line(tune, tuning, key, told):
    result, lines = tune(tuning)
    assert result.code == 2, result.err
    assert told in result.err
    number = [i for i, x in enumerate(lines, 1) if x.strip().startswith(key)][-1]
    around = {f"(line {n})" for n in (number - 1, number, number + 1)}
    assert any(line in result.err for line in around), (result.err, number)


def test_without_a_section(tune):
    result, _ = tune(None)
    assert result.code == 2 and "no `tuning` section" in result.err
    result, _ = tune(None, "--max-trials", 3)
    assert result.code == 2 and "no `tuning` section" in result.err


def test_without_an_experiment(tfmtl, tmp_path):
    result = tfmtl("tune", "--directory", tmp_path / "s")
    assert result.code == 2 and "EXPERIMENT" in result.err
    result = tfmtl("tune", "--directory", tmp_path / "s", "--choose", "max click/auc")
    assert result.code == 3 and "is no search" in result.err


def test_some_variables_of_the_protocol(tune, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    result, _ = tune({"space": {"optimizers.default.learning_rate": RATE}})
    assert result.code == 2 and "KERASTUNER_ORACLE_IP" in result.err


def test_choose_writes_the_experiment(tfmtl, tmp_path):
    tuning = {"space": {"optimizers.default.learning_rate": RATE}}
    experiment = Experiment.model_validate(DOCUMENT | {"tuning": tuning})
    search = tmp_path / "s"
    for number, (click, like) in enumerate([(0.7, 0.6), (0.8, 0.5), (0.75, 0.58)]):
        TrialRecord(
            trial=f"{number:04d}",
            values={"optimizers.default.learning_rate": 0.01 * (number + 1)},
            status="finished",
            reason="epochs",
            metrics={"click/auc": click, "like/auc": like},
            step=1,
            steps=1,
            seconds=1.0,
            seed=0,
            experiment="",
        ).write(search / "trials" / f"{number:04d}")
    (search / "experiment.yaml").write_text(dump_experiment(experiment))
    (search / "search.json").write_text("{}")
    text = "like/auc >= 0.55, max click/auc"
    result = tfmtl("tune", "--directory", search, "--choose", text)
    assert result.code == 0, result.err
    assert "0002" in result.out
    chosen = yaml.safe_load((search / "chosen.yaml").read_text())
    assert chosen["optimizers"]["default"]["learning_rate"] == 0.03
    assert chosen["tuning"] is None
    result = tfmtl(
        "tune", "--directory", search, "--choose", "like/auc >= 0.9, max click/auc"
    )
    assert result.code == 2 and "misses" in result.err
