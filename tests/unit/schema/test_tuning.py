"""The section `tuning`: what may be searched, for what, and what is refused."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import yaml

from tfmtl.errors import ConfigError
from tfmtl.schema.dataset import model_only
from tfmtl.schema.document import Loader
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import dump_experiment, parse_experiment
from tfmtl.schema.tuning import TuningSpec
from tfmtl.training.rundir import RunDirectory

BUY, CLICK, STAY = (f"balancer.config.weights.{t}" for t in ("buy", "click", "stay"))
WEIGHT = {"type": "float", "min": 0.1, "max": 10}
RATE = "optimizers.default.learning_rate"
CLASS = "model.class"
CHOICE = {"type": "choice", "values": ["MMoE", "PLE"]}
UNITS = "model.config.expert_units"


def parsed(document: dict[str, Any], **tuning: Any) -> TuningSpec:
    """The section in the small experiment."""
    tuning.setdefault("space", {BUY: WEIGHT})
    found = parse_experiment({**document, "tuning": tuning}).tuning
    assert found is not None
    return found


def test_defaults(document):
    assert parse_experiment(document).tuning is None
    found = parsed(document)
    assert (found.oracle, found.objectives) == ("bayesian", ("mean/auc",))
    assert (found.budget, found.seeds, found.top) == (30, 3, 3)
    assert parsed(document, oracle="hyperband").budget is None, "all brackets"
    assert parsed(document, oracle="hyperband", max_trials=9).budget == 9
    assert found.space[BUY].scale == "log", "weights are searched as log-ratios"
    assert parsed(document, space={RATE: WEIGHT}).space[RATE].scale == "linear"


def test_who_is_the_rival(document):
    tasks = ("click", "buy")
    found = parsed(document)
    assert found.rivals(tasks) == found.rival.balancers != ()
    assert found.rivals(tasks[:1]) == (), "nothing to balance"
    assert parsed(document, seeds=0).rivals(tasks) == ()
    assert parsed(document, rival={"trials": 0}).rivals(tasks) == ()
    chosen = {"type": "choice", "values": ["Equal", "PCGrad"]}
    assert parsed(document, space={"balancer.class": chosen}).rivals(tasks) == ()


def test_a_resolved_file_is_the_same_search(document):
    space = {
        BUY: WEIGHT,
        CLASS: CHOICE,
        UNITS: {"type": "choice", "values": [[64], [8, 4]], "when": {CLASS: ["PLE"]}},
        "training.deterministic": {"type": "boolean"},
        "training.batch_size": {"type": "int", "min": 8, "max": 64, "scale": "pow2"},
    }
    document["tuning"] = {"space": space, "objective": ["click/auc", "buy/auc"]}
    first = parse_experiment(document)
    assert parse_experiment(yaml.safe_load(dump_experiment(first))) == first
    assert "pow2" in str(Experiment.model_json_schema(by_alias=True))


def test_the_example_of_the_docs_is_legal():
    page = pathlib.Path(__file__).parents[3] / "docs" / "experiment.md"
    block = page.read_text().partition("```yaml\ntuning:")[2].partition("```")[0]
    document = yaml.load(f"tuning:{block}", Loader=Loader)
    assert len(TuningSpec.model_validate(document["tuning"]).space) == 5


def at(path: str, **dimension: Any) -> dict[str, Any]:
    """A space of one dimension."""
    return {"space": {path: dimension}}


FLOAT = {"type": "float", "min": 1, "max": 2}
INT = {"type": "int", "min": 1, "max": 8}
GRID = {"oracle": "grid"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "empty space": ({"space": {}}, "at least 1 item"),
    "empty range": (at(RATE, type="float", min=2, max=2),
                    "learning_rate.min: an empty range.*min=2.0, max=2.0"),
    "empty range of integers": (at(RATE, type="int", min=3, max=2), "an empty range"),
    "log from 0": (at(RATE, type="float", min=0, max=1, scale="log"),
                   "needs `min` > 0. Received: min=0.0"),
    "pow2 from 0": (at(RATE, type="int", min=0, max=1, scale="pow2"), "`min` > 0"),
    "pow2 with a step": (at(RATE, **INT, scale="pow2", step=2), "has the step 2"),
    "pow2 of one": (at(RATE, type="int", min=4, max=7, scale="pow2"), "beyond `max`"),
    "NaN": (at(RATE, type="float", min=float("nan"), max=1), "finite number"),
    "infinity": (at(RATE, type="float", min=0, max=float("inf")), "finite number"),
    "text": (at(RATE, type="float", min="low", max=1), "min: .*valid number"),
    "fraction": (at(RATE, type="int", min=1.5, max=3), "min: .*valid integer"),
    "unknown type": (at(RATE, type="double", min=1, max=3), "'float', 'int', 'choice'"),
    "unknown key": (at(RATE, **FLOAT, stp=1), "unknown key, did you mean 'step'"),
    "step 0": (at(RATE, **FLOAT, step=0), "`step` must be > 0"),
    "step too far": (at(RATE, **FLOAT, step=3), "beyond `max`"),
    "factor 1": (at(RATE, **FLOAT, scale="log", step=1), "a step is a factor, > 1"),
    "one value": (at(RATE, type="choice", values=[1]), "two `values` or more"),
    "twice": (at(RATE, type="choice", values=[1, 1.0]), "must be distinct"),
    "lists twice": (at(UNITS, type="choice", values=[[1], [1]]), "must be distinct"),
    "mixed": (at(RATE, type="choice", values=[1, "a"]), "of one type"),
    "mappings": (at(RATE, type="choice", values=[{}, {"a": 1}]), "of one type"),
    "infinite value": (at(RATE, type="choice", values=[1.0, float("inf")]), "finite"),
    "no path": (at("a..b", **FLOAT), "a path must be dotted"),
    "prefix": ({"space": {"model.config.a": FLOAT, "model.config.a.b": FLOAT}},
               "'model.config.a.b' is a part of 'model.config.a'"),
    "seed": (at("seed", **INT), "'seed' is not searched"),
    "name": (at("name", **CHOICE), "'name' is not searched"),
    "version": (at("version", **INT), "'version' is not searched"),
    "tuning": (at("tuning.top", **INT), "'tuning' is not searched"),
    "monitor": (at("training.monitor", **CHOICE), "the same for all"),
    "evaluation": (at("evaluation.ranking.at", **CHOICE), "what is measured"),
    "export": (at("export.outputs", **CHOICE), "comes after training"),
    "records": (at("dataset.sampling.rate", **FLOAT),
                "each value is a data set of its own.*give a `step`"),
    "grid over a float": ({**GRID, **at(RATE, **FLOAT)}, "`oracle: grid` .*no `step`"),
    "grid over a log integer": ({**GRID, **at(RATE, **INT, scale="log")}, "no `step`"),
    "linear weight": (at(BUY, **WEIGHT, scale="linear"), "log-ratios"),
    "weight by choice": (at(BUY, type="choice", values=[1, 2]), "log-ratios"),
    "weight of no task": (at("balancer.config.weights.by", **WEIGHT),
                          "'by', which is no task, did you mean 'buy'"),
    "all weights": ({"space": {BUY: WEIGHT, CLICK: WEIGHT, STAY: WEIGHT}},
                    "common factor changes nothing: leave one out"),
    "no objective": ({"objective": []}, "must be a metric"),
    "objective twice": ({"objective": ["buy/auc", "buy/auc"]}, "distinct"),
    "unknown objective": ({"objective": "buy/auk"},
                          "`tuning.objective` must be task/metric.*'buy/auk'"),
    "unknown task": ({"objective": ["buy/auc", "sell/auc"]}, "Received: 'sell/auc'"),
    "metric of another type": ({"objective": "buy/rmse"}, "binary task has"),
    "unknown scenario": ({"objective": "buy@live/auc"}, "names scenario 'live'"),
    "list metric": ({"objective": "buy/ndcg@5"}, "only objective, and the monitor"),
    "hyperband": ({"oracle": "hyperband", "objective": ["buy/auc", "click/auc"]},
                  "by one number"),
    "two prunings": ({"oracle": "hyperband", "pruning": {"rule": "median"}},
                     "stops trials itself"),
    "no bound": ({"constraints": ["buy/auc > 1"]}, "must be a metric and a bound"),
    "unknown bound": ({"constraints": ["buy/auk >= 1"]}, "`tuning.constraints` must"),
    "bound with spaces": ({"constraints": ["buy auc >= 0.5"]},
                          "`tuning.constraints` must be task/metric.*.buy auc."),
    "two bounds in one": ({"constraints": ["buy/auc >= 0.5 >= 0.4"]},
                          "`tuning.constraints` must be task/metric"),
    "space in a bound": ({"constraints": ["buy /auc >= 0.5"]},
                         "`tuning.constraints` must be task/metric"),
    "auc above 1": ({"constraints": ["buy/auc >= 1.5"]}, "lies between 0 and 1"),
    "auc below 0": ({"constraints": ["buy/auc <= -0.1"]}, "lies between 0 and 1"),
    "logloss below 0": ({"constraints": ["buy/logloss <= -1"]}, "never below 0"),
    "rmse below 0": ({"constraints": ["stay/rmse <= -1"]}, "never below 0"),
    "far from the baseline": ({"constraints": ["buy/auc >= baseline + 1.5"]},
                              "at most 1 apart"),
    "contradiction": ({"constraints": ["buy/auc >= 0.8", "buy/auc <= 0.7"]},
                      "keeps both 'buy/auc >= 0.8' and 'buy/auc <= 0.7'"),
    "contradiction of offsets": (
        {"constraints": ["buy/auc <= baseline - 0.1", "buy/auc >= baseline"]},
        "keeps both"),
    "list bound": ({"constraints": ["buy/ndcg@5 >= 0.1"]}, "not measured beside"),
    "controls twice": ({"controls": ["Equal", "Equal"]}, "must be distinct"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(document, case):
    tuning, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        parsed(document, **tuning)


def test_what_is_allowed(document):
    """The nearest neighbours of what is refused."""
    parsed(document, space={BUY: WEIGHT, CLICK: WEIGHT})
    parsed(document, oracle="grid", space={RATE: FLOAT | {"step": 0.5}})
    parsed(
        document, oracle="grid", space={RATE: INT | {"scale": "pow2"}, CLASS: CHOICE}
    )
    parsed(document, space={"dataset.features.price.side": CHOICE})
    parsed(document, space={"dataset.tasks.buy.loss.gamma": FLOAT})
    parsed(document, constraints=["buy/auc >= 0.7", "buy/auc <= 0.7"])
    parsed(document, constraints=["buy/auc >= 0.8", "buy/auc <= baseline - 0.1"])
    document["dataset"]["scenario"]["values"].append("new users")
    parsed(document, constraints=["buy@new users/auc >= baseline - 1e-3"])
    parsed(document, objective=["click@home/auc", "stay/rmse", "mean/logloss"])
    document["training"] = {"monitor": "buy/ndcg@5"}
    assert parsed(document, objective="buy/ndcg@5").objectives == ("buy/ndcg@5",)


def when(parent: str, *values: Any) -> dict[str, Any]:
    """A dimension under a condition."""
    return {"type": "choice", "values": ["a", "b"], "when": {parent: values}}


A, B, C = "model.config.a", "model.config.b", "model.config.c"
CONDITIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown parent": ({A: when("model.klass", 1), CLASS: CHOICE},
                       "'model.klass', which is no dimension.*mean 'model.class'"),
    "unknown value": ({A: when(CLASS, "MMOE"), CLASS: CHOICE},
                      r"Received: 'MMOE'; it takes: \['MMoE', 'PLE'\]"),
    "no value": ({A: when(CLASS), CLASS: CHOICE}, "must name values"),
    "value off the step": ({A: when(B, 4), B: INT | {"scale": "pow2", "max": 3}},
                           "does not take. Received: 4; it takes: 1 to 3, pow2"),
    "number for a boolean": ({A: when(B, 1), B: {"type": "boolean"}}, "Received: 1"),
    "boolean for a number": ({A: when(B, True), B: INT}, "Received: True"),
    "float": ({A: when(RATE, 1), RATE: FLOAT}, "a float has no values"),
    "itself": ({A: when(A, "a")}, "depend on each other"),
    "circle": ({A: when(B, "a"), B: when(C, "a"), C: when(A, "a")},
               "depend on each other"),
    "never": ({A: when(CLASS, "PLE"), CLASS: CHOICE,
               B: when(A, "a") | {"when": {A: ["a"], CLASS: ["MMoE"]}}},
              "'model.config.b' is never active"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONDITIONS)
def test_conditions_that_are_refused(document, case):
    space, message = CONDITIONS[case]
    with pytest.raises(ConfigError, match=message):
        parsed(document, space=space)


def test_conditions_chain(document):
    space = {C: when(B, 3), B: INT | {"when": {A: [True]}}, A: {"type": "boolean"}}
    found = parsed(document, space=space)
    assert found.conditions(C) == {A: (True,), B: (3,)}
    assert list(found.conditions(C)) == [A, B], "outermost first"
    assert found.conditions(A) == {}


def test_a_rule_of_the_space_names_the_key(document):
    with pytest.raises(ConfigError) as caught:
        parsed(document, space={RATE: FLOAT, A: when(CLASS, "x"), CLASS: CHOICE})
    assert caught.value.places == (("tuning", "space", A, "when", CLASS),)
    with pytest.raises(ConfigError) as caught:
        parsed(document, constraints=["buy/auc >= 0.1", "buy/auc >= 2"])
    assert caught.value.places == (("tuning", "constraints", 1),)


def test_what_no_record_depends_on():
    for path in ("features.price.dim", "features.a.columns.b.dim", "tasks.t.loss.gamma",
                 "scenario.dim", "sampling.correction", "tasks.t.role"):  # fmt: skip
        assert model_only(f"dataset.{path}"), path
    for path in ("features.dim.buckets", "features.loss", "tasks.role.label",
                 "scenario", "sampling.keep", "vocabularies.dim.max_size"):  # fmt: skip
        assert not model_only(f"dataset.{path}"), path


def test_a_run_goes_on_where_only_the_search_changed(tmp_path, document):
    document["dataset"]["side_tables"]["text"]["path"] = "/data/text.parquet"
    run = RunDirectory(tmp_path)
    run.begin(parse_experiment(document), {"schema_hash": "x"})
    document["tuning"] = {"space": {BUY: WEIGHT}}
    run.check_same(parse_experiment(document), "x")
    document["training"] = {"epochs": 3}
    with pytest.raises(ConfigError, match=r"\['training'\] of the experiment changed"):
        run.check_same(parse_experiment(document), "x")
