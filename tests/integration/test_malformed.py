"""Malformed input of every kind gets a clear error, or its row a dead letter."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from serving.server import running
from tests.integration.malformed import (
    DATASET,
    GOOD,
    WIDE,
    Answer,
    Bench,
    document,
    preprocess_rows,
)
from tests.integration.small import Chain, changed
from tfmtl.schema.manifest import read_dataset

Act = Callable[[Bench], Answer]


@dataclasses.dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        name: What is wrong.
        act: Brings it in and says what came of it.
        code: Expected exit code, HTTP status, "dead letter" or "kept".
        words: All of these must be in the message, reason or kept row.
    """

    name: str
    act: Act
    code: int | str
    words: tuple[str, ...]


# --- rows: a dead letter with the reason, or kept with what it means -----------------

LONG = "x" * 10_000_000

ROWS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "label 2": ({"clicked": "2"}, "dead letter", ("'click'", "not 0 or 1")),
    "label text": ({"clicked": "maybe"}, "dead letter", ("'click'", "no number")),
    "label infinite": ({"clicked": "inf"}, "dead letter", ("'click'", "no number")),
    "label NaN": ({"clicked": "nan"}, "kept", ("label/click=nan",)),
    "label null": ({"clicked": None}, "kept", ("label/click=nan",)),
    "class 7 of 3": ({"grade": 7.0}, "dead letter", ("'grade'", "0 .. 2")),
    "class 0.5": ({"grade": 0.5}, "dead letter", ("'grade'", "0 .. 2")),
    "weight negative": ({"paid": -1.0}, "dead letter", ("'buy'", "weight", "negative")),
    "weight null": ({"paid": None}, "dead letter", ("'buy'", "weight", "missing")),
    "log1p negative": ({"seconds": -3.0}, "dead letter", ("'dwell'", "negative")),
    "regression infinite": (
        {"seconds": math.inf}, "dead letter", ("'dwell'", "no number"),
    ),
    "number text": ({"price": "cheap"}, "dead letter", ("'price'", "not a number")),
    "number infinite": ({"price": "-inf"}, "dead letter", ("'price'", "infinite")),
    "number 1e300": ({"price": "1e300"}, "dead letter", ("'price'", "too large")),
    "number null": ({"price": None}, "kept", ("label/click=1",)),
    "text of 10 MB": ({"item": LONG.encode()}, "dead letter", ("'item'", "1,000,000")),
    "invalid UTF-8": ({"item": b"\xff\xfe"}, "dead letter", ("'item'", "UTF-8")),
    "unequal lists": (
        {"hist_age": [1.0]}, "dead letter", ("'hist'", "unequal lengths"),
    ),
    "list infinite": (
        {"hist_age": [1.0, math.inf]}, "dead letter", ("'hist_age'", "infinite"),
    ),
    "vector too long": (
        {"vec": [1.0, 2.0, 3.0]}, "dead letter", ("'vec'", "size is not 2"),
    ),
    "vector with null": (
        {"vec": [1.0, None]}, "dead letter", ("'vec'", "missing element"),
    ),
    "time garbage": ({"time": "yesterday"}, "dead letter", ("'time'", "not a time")),
    "time null": ({"time": None}, "dead letter", ("'time'", "missing")),
    "scenario unknown": ({"page": "basket"}, "kept", ("scenario=2",)),
    "scenario null": ({"page": None}, "kept", ("scenario=2",)),
    "feature null": ({"item": None}, "kept", ("item=0",)),
}  # fmt: skip

CSV: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # First: the names of the columns are sought in the first megabyte.
    "csv text of 10 MB in the first row": (
        f"KEY,{LONG},1.5,home,1,1600000000", "dead letter", ("'item'", "1,000,000"),
    ),
    "csv too few fields": ("KEY,a,1.5", "dead letter", ("number of fields",)),
    "csv too many fields": (
        "KEY,a,1.5,home,1,1600000000,9", "dead letter", ("number of fields",),
    ),
    "csv number text": (
        "KEY,a,cheap,home,1,1600000000", "dead letter", ("'price'", "not a number"),
    ),
    "csv invalid UTF-8": (
        "KEY,\udcff\udcfe,1.5,home,1,1600000000", "dead letter", ("'item'", "UTF-8"),
    ),
    "csv empty cells": ("KEY,,,,,1600000000", "kept", ("scenario=2 item=0", "nan")),
    # Last: what an open quote swallows is one line to the end of the file.
    "csv open quote": ('KEY,"a,1.5,home,1,1600000000', "dead letter", ("fields",)),
}  # fmt: skip


def _row(name: str) -> Act:
    return lambda bench: bench.rows[name]


ROW_CASES = [
    Case(name, _row(name), *expected) for name, (_, *expected) in (ROWS | CSV).items()
]

# --- files ---------------------------------------------------------------------------


def _parquet(bench: Bench, rows: int = 60, **columns: Any) -> pathlib.Path:
    table = {
        "row": list(range(rows)),
        "item": ["a"] * rows,
        "price": [1.0] * rows,
        "page": ["home"] * rows,
        "clicked": [n % 2 for n in range(rows)],
        "time": list(range(rows)),
    } | columns
    path = bench.folder / "logs.parquet"
    pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), path)
    return path


def _truncated_parquet(bench: Bench) -> Answer:
    path = _parquet(bench)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return bench.preprocess(path)


def _flipped_parquet(bench: Bench) -> Answer:
    rows = 5_000
    path = _parquet(bench, rows, item=[f"i{n * 7919 % rows}" for n in range(rows)])
    content = bytearray(path.read_bytes())
    for place in range(2_000, 12_000):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    return bench.preprocess(path)


CSV_HEAD = "row,item,price,page,clicked,time\n"


def _truncated_gzip(bench: Bench) -> Answer:
    lines = CSV_HEAD + "".join(
        f"{n},i{n * 7919 % 10007},1,home,1,{n}\n" for n in range(20_000)
    )
    packed = gzip.compress(lines.encode())
    return bench.preprocess(bench.file("logs.csv.gz", packed[: len(packed) // 2]))


def _split(bench: Bench, **rule: Any) -> Answer:
    return bench.preprocess(_parquet(bench), DATASET | {"split": rule})


def _full_output(bench: Bench) -> Answer:
    experiment = bench.file("experiment.yaml", yaml.safe_dump(document()))
    output = bench.folder / "full"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    answer = bench.run(
        *("preprocess", experiment, "--input", _parquet(bench), "--output", output)
    )
    assert (output / "mine.txt").read_text() == "mine"
    return answer


FILES = [
    Case("file empty", lambda b: b.preprocess(b.file("a.parquet", "")), 3,
         ("a.parquet", "empty, truncated or damaged")),
    Case("file without rows", lambda b: b.preprocess(_parquet(b, 0)), 3, ("no rows",)),
    Case("folder empty", lambda b: b.preprocess(b.folder / "none" / "*.parquet"), 2,
         ("matches no file", "none")),
    Case("suffix unknown", lambda b: b.preprocess(b.file("a.xlsx", "x")), 2,
         (".parquet", "a.xlsx")),
    Case("parquet truncated", _truncated_parquet, 3, ("logs.parquet", "truncated")),
    Case("parquet overwritten", _flipped_parquet, 3, ("logs.parquet", "damaged")),
    Case("parquet that is text", lambda b: b.preprocess(b.file("a.parquet", "a,b\n")),
         3, ("a.parquet", "damaged")),
    Case("gzip corrupt", lambda b: b.preprocess(b.file("a.csv.gz", "no gzip")), 3,
         ("a.csv.gz", "damaged")),
    Case("gzip truncated", _truncated_gzip, 3, ("logs.csv.gz", "damaged")),
    Case("avro corrupt", lambda b: b.preprocess(b.file("a.avro", "no avro")), 3,
         ("a.avro", "damaged")),
    Case("csv empty", lambda b: b.preprocess(b.file("a.csv", "")), 3, ("a.csv",)),
    Case("csv header only", lambda b: b.preprocess(b.file("a.csv", CSV_HEAD)), 3,
         ("no rows",)),
    Case("column missing", lambda b: b.preprocess(_parquet(b, price=None)), 3,
         ("lacks the column", "'price'", "it has")),
    Case("column of lists for a number",
         lambda b: b.preprocess(_parquet(b, price=[[1.0]] * 60)), 3,
         ("'price'", "list", "number")),
    Case("column of lists for a label",
         lambda b: b.preprocess(_parquet(b, clicked=[[1]] * 60)), 3,
         ("clicked", "list")),
    Case("column of numbers for a list",
         lambda b: b.preprocess(_parquet(
             b, vec=[1.0] * 60, hist_item=["a"] * 60, hist_age=[1.0] * 60,
             grade=[1] * 60, bought=[1] * 60, paid=[1] * 60, seconds=[1] * 60), WIDE),
         3, ("list is needed",)),
    Case("all rows rejected", lambda b: b.preprocess(_parquet(b, clicked=[5] * 60)), 3,
         ("all 60 rows were rejected", "not 0 or 1")),
    Case("train split empty",
         lambda b: _split(b, by="boundaries", validation_from=-5, test_from=30), 3,
         ("train split is empty", "validation_from")),
    Case("all rows in a gap",
         lambda b: _split(b, by="boundaries", validation_from=59, gap=500), 3,
         ("train split is empty", "dropped: 59", "gap")),
    Case("one timestamp", lambda b: b.preprocess(_parquet(b, time=[7] * 60)), 3,
         ("distinct timestamps", "1")),
    Case("output holds files", _full_output, 2, ("--overwrite", "full")),
]  # fmt: skip

# --- experiment files ----------------------------------------------------------------


def _check(**changes: Any) -> Act:
    return lambda bench: bench.check_document(document(**changes))


def _set(override: str) -> Act:
    return lambda bench: bench.train("--set", override)


TWO = [{"name": "click", "label": "clicked"}, {"name": "buy", "label": "bought"}]

EXPERIMENTS = [
    Case("yaml key twice", lambda b: b.check("name: a\nname: b\n"), 2,
         ("'name' stands twice", "line 2")),
    Case("yaml broken", lambda b: b.check("name: [a\nseed: 1"), 2, ("does not parse",)),
    Case("yaml is a list", lambda b: b.check("- name: a\n"), 2, ("mapping", "list")),
    Case("yaml empty", lambda b: b.check(""), 2, ("mapping", "NoneType")),
    Case("yaml of another encoding", lambda b: b.run(
        "config", "check", b.file("e.yaml", b"name: \xff\n")), 2, ("does not parse",)),
    Case("yaml bomb", lambda b: b.check("a: " + "[" * 20_000), 2, ("does not parse",)),
    Case("toml broken", lambda b: b.check("name = ", "e.toml"), 2, ("does not parse",)),
    Case("json broken", lambda b: b.check("{", "e.json"), 2, ("does not parse",)),
    Case("suffix of the experiment", lambda b: b.check("", "e.ini"), 2, (".yaml",)),
    Case("key unknown", _check(training__batch_sise=5), 2,
         ("batch_sise", "did you mean 'batch_size'")),
    Case("value of another type", _check(training__batch_size="many"), 2,
         ("training.batch_size", "integer", "many")),
    Case("model unknown", _check(model={"class": "MMOE"}), 2,
         ("model.class", "MMoE", "MMOE")),
    Case("model class absent", _check(model={"class": "no.such:Thing"}), 2,
         ("no.such:Thing", "cannot be imported")),
    Case("model setting unknown",
         _check(model={"class": "MMoE", "config": {"num_expert": 2}}), 2,
         ("model.config", "num_expert", "num_experts")),
    Case("model setting out of bounds",
         _check(model={"class": "MMoE", "config": {"num_experts": 0}}), 2,
         ("num_experts", "greater than or equal to 1", "0")),
    Case("balancer unknown", _check(balancer={"class": "Magic"}), 2,
         ("balancer.class", "Equal", "Magic")),
    Case("monitor of no task", _check(training__monitor="clik/auc"), 2,
         ("training.monitor", "clik/auc", "click")),
    Case("monitor of no scenario", _check(training__monitor="click@shop/auc"), 2,
         ("shop", "home")),
    Case("vocabulary undeclared", _check(dataset__features__0__vocabulary="items"), 2,
         ("'items'", "not declared")),
    Case("vocabulary unused", _check(dataset__vocabularies={"spare": {}}), 2,
         ("no feature uses", "spare")),
    Case("default optimizer absent", _check(optimizers={"embedding": {}}), 2,
         ("`default`", "embedding")),
    Case("given unknown",
         _check(dataset__tasks=[TWO[0], TWO[1] | {"given": "clicks"}]), 2,
         ("'clicks'", "Did you mean 'click'")),
    Case("given in a circle",
         _check(dataset__tasks=[TWO[0] | {"given": "buy"},
                                TWO[1] | {"given": "click"}]),
         2, ("depend on each other", "buy", "click")),
    Case("feature is a label", _check(dataset__features__1__column="clicked"), 2,
         ("'price'", "'clicked'", "see its answer")),
    Case("feature twice", _check(dataset__features__1__name="item"), 2,
         ("distinct", "item")),
    Case("name of a feature", _check(dataset__features__1__name="my price"), 2,
         ("my price", "letter", "column:")),
    Case("label expression calls",
         _check(dataset__tasks__0__label="__import__('os').getcwd()"), 2,
         ("expression", "Call")),
    Case("label expression broken", _check(dataset__tasks__0__label="rating >="), 2,
         ("expression", "rating >=")),
    Case("split over 1", _check(dataset__split__test=0.9), 2, ("below 1", "0.9")),
    Case("split without time", _check(dataset__keys={}), 2, ("timestamp",)),
    Case("split boundaries reversed",
         _check(dataset__split={"by": "boundaries", "validation_from": 5,
                                "test_from": 3}), 2, ("validation_from", "5", "3")),
    Case("scenario called unknown", _check(dataset__scenario__values=["unknown"]), 2,
         ("unknown", "scenario values")),
    Case("export of no task", _check(export={"outputs": ["clik"]}), 2,
         ("export.outputs", "clik", "click")),
    Case("set without =", _set("training.batch_size"), 2, ("dotted.path=value",)),
    Case("set into a value", _set("seed.deep.er=1"), 2, ("seed", "plain value")),
    Case("set of no item", _set("dataset.features.colour.dim=3"), 2,
         ("colour", "user_id")),
    Case("set of an unknown key", _set("training.epoch=3"), 2,
         ("training.epoch", "did you mean 'epochs'")),
    Case("set of broken yaml", _set("training.epochs=[1"), 2, ("does not parse",)),
]  # fmt: skip

# --- data sets, runs, exports --------------------------------------------------------


def _without(source: pathlib.Path, target: pathlib.Path, *broken: str) -> pathlib.Path:
    """A copy of a folder in which the files that fit the globs are cut in half."""
    shutil.copytree(source, target)
    for pattern in broken:
        files = list(target.glob(pattern))
        assert files
        for file in files:
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])
    return target


def _damaged_dataset(*broken: str) -> Act:
    return lambda b: b.train(dataset=_without(b.chain.dataset, b.folder / "d", *broken))


def _missing_records(bench: Bench) -> Answer:
    dataset = _without(bench.chain.dataset, bench.folder / "d")
    shutil.rmtree(dataset / "train")
    return bench.train(dataset=dataset)


def _shortened(bench: Bench) -> Answer:
    """The last block of the training split is gone, and nothing else."""
    dataset = _without(bench.chain.dataset, bench.folder / "d")
    path = dataset / read_dataset(dataset).splits["train"].files[-1].path
    content, end = path.read_bytes(), 0
    while end < len(content):  # length, its checksum, data, their checksum
        last = end
        end += 16 + int.from_bytes(content[end : end + 8], "little")
    path.write_bytes(content[:last])
    return bench.train(dataset=dataset)


def _other_dataset(bench: Bench) -> Answer:
    other = changed(dataset__split__test=0.3)
    experiment = bench.file("other.yaml", yaml.safe_dump(other))
    return bench.run(
        *("train", experiment, "--dataset", bench.chain.dataset),
        *("--run", bench.folder / "run"),
    )


def _resume_changed(bench: Bench) -> Answer:
    run = _without(bench.chain.run, bench.folder / "copy")
    (run / "result.json").unlink()
    answer = bench.run(
        *("train", bench.chain.experiment, "--dataset", bench.chain.dataset),
        *("--run", run, "--resume", "--set", "seed=99"),
    )
    assert not (run / "result.json").exists()
    return answer


def _damaged_run(*broken: str, absent: str | None = None) -> Act:
    def act(bench: Bench) -> Answer:
        run = _without(bench.chain.run, bench.folder / "run", *broken)
        if absent is not None:
            for path in run.glob(absent):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return bench.run("evaluate", run)

    return act


def _export_again(bench: Bench) -> Answer:
    models = bench.chain.models
    answer = bench.run("export", bench.chain.run, "--output", models, "--version", 1)
    assert [p.name for p in models.iterdir()] == ["1"]
    return answer


def _score_damaged(bench: Bench) -> Answer:
    model = _without(bench.chain.models / "1", bench.folder / "m", "saved_model.pb")
    output = bench.folder / "scores.parquet"
    answer = bench.run("score", model, "--input", bench.chain.logs, "--output", output)
    assert not output.exists()
    return answer


def _score(bench: Bench, file: pathlib.Path) -> Answer:
    output = bench.folder / "scores.parquet"
    answer = bench.run("score", bench.chain.models, "--input", file, "--output", output)
    assert not output.exists()
    return answer


FOLDERS = [
    Case("data set of another experiment", _other_dataset, 2,
         ("`dataset.split`", "0.3", "0.2", "tfmtl preprocess")),
    Case("data set without manifest",
         lambda b: b.train(dataset=b.folder), 3, ("dataset.json",)),
    Case("data set's manifest damaged", _damaged_dataset("dataset.json"), 3,
         ("dataset.json", "damaged")),
    Case("records truncated", _damaged_dataset("train/*"), 3,
         ("split train", "record file is damaged", "tfmtl preprocess")),
    Case("records missing", _missing_records, 3,
         ("split train", "record file is missing", "tfmtl preprocess")),
    Case("records of validation truncated", _damaged_dataset("validation/*"), 3,
         ("split validation", "record file is damaged")),
    Case("records end early", _shortened, 3,
         ("split train", "fewer rows than dataset.json says")),
    Case("optimizer of no variable", _set("optimizers={default: {}, head: {}}"), 2,
         ("['head']", "Groups", "embedding")),
    Case("monitor of another type of task",
         _set("training.monitor=click/rmse"), 2,
         ("training.monitor", "binary task", "auc", "click/rmse")),
    Case("run exists", lambda b: b.run(
        "train", b.chain.experiment, "--dataset", b.chain.dataset, "--run",
        b.chain.run), 2, ("--overwrite",)),
    Case("resume of another experiment", _resume_changed, 2, ("--resume", "seed")),
    Case("run is none", lambda b: b.run("evaluate", b.folder), 3,
         ("run directory", "run.json")),
    Case("run not finished", _damaged_run(absent="result.json"), 3,
         ("not finished", "--resume")),
    Case("run's facts damaged", _damaged_run("run.json"), 3, ("run.json", "damaged")),
    Case("run's result damaged", _damaged_run("result.json"), 3,
         ("result.json", "damaged")),
    Case("run's experiment damaged", _damaged_run("experiment.yaml"), 3,
         ("experiment.yaml",)),
    Case("run's best model missing", _damaged_run(absent="checkpoints/best-*"), 3,
         ("model of step", "missing")),
    Case("run's best model damaged",
         _damaged_run("checkpoints/best-*/model.data*"), 3,
         ("model of step", "damaged")),
    Case("export of an existing version", _export_again, 2, ("version", "[1]")),
    Case("score with a damaged model", _score_damaged, 3, ("SavedModel",)),
    Case("score with no model", lambda b: b.run(
        "score", b.folder, "--input", b.chain.logs, "--output",
        b.folder / "s.parquet"), 2, ("run directory", "exported")),
    Case("score of other columns", lambda b: _score(b, _parquet(b)), 3,
         ("lacks the column", "'user_id'")),
    Case("score of a damaged file", lambda b: _score(b, b.file("a.parquet", "x")), 3,
         ("a.parquet", "damaged")),
    Case("serve of nothing", lambda b: b.run("serve", b.folder, "--rest-port", 0), 3,
         ("version",)),
]  # fmt: skip

# --- requests ------------------------------------------------------------------------


def _body(**changes: Any) -> Act:
    return lambda bench: bench.post(bench.instance(**changes))


def _dropped(bench: Bench) -> Answer:
    body = json.loads(bench.instance())
    del body["instances"][0]["item_price"]
    return bench.post(json.dumps(body))


def _unequal(bench: Bench) -> Answer:
    (row,) = json.loads(bench.instance())["instances"]
    rows = [row, row | {"hist_item": ["a", "b"]}]
    return bench.post(json.dumps({"instances": rows}))


def _predict(content: str) -> Act:
    def act(bench: Bench) -> Answer:
        url = f"{bench.url}/v1/models/small"
        return bench.run("predict", url, "--rows", bench.file("rows.json", content))

    return act


REQUESTS = [
    Case("body no JSON", lambda b: b.post("{not json"), 400, ("JSON Parse error",)),
    Case("body empty", lambda b: b.post(""), 400, ("empty",)),
    Case("body no object", lambda b: b.post("[1]"), 400, ("not object",)),
    Case("body no UTF-8", lambda b: b.post(b'{"instances": ["\xff"]}'), 400, ("JSON",)),
    Case("body nested deep", lambda b: b.post('{"instances":' + "[" * 30_000), 400,
         ("JSON",)),
    Case("body too large", lambda b: b.post(b.instance(user_id="x" * 100_000)), 413,
         ("larger", "65536")),
    Case("body without rows", lambda b: b.post("{}"), 400, ("instances",)),
    Case("body with no row", lambda b: b.post('{"instances": []}'), 400,
         ("instances",)),
    Case("input unknown", _body(colour="red"), 400, ("colour",)),
    Case("input missing", _dropped, 400, ("keys must be equal", "item_price")),
    Case("text for a float", _body(item_price="cheap"), 400, ("cheap",)),
    Case("float for an integer", _body(shown=1.5), 400, ("1.5",)),
    Case("null for text", _body(user_id=None), 400, ("null",)),
    Case("list for a scalar", _body(user_id=["u"]), 400, ("user_id",)),
    Case("lists ragged", _unequal, 400, ("hist_item",)),
    Case("vector too short", _body(item_content=[1.0]), 400, ("item_content",)),
    Case("signature unknown",
         lambda b: b.post('{"signature_name": "x", "instances": [1]}'), 400, ("x",)),
    Case("request to an unknown model",
         lambda b: b.post(b.instance(), "other:predict"), 404, ("other",)),
    Case("request to an unknown version",
         lambda b: b.post(b.instance(), "small/versions/9:predict"), 404, ("9",)),
    Case("verb unknown", lambda b: b.post(b.instance(), "small:guess"), 400,
         ("Malformed request",)),
    Case("example no proto", lambda b: b.post(
        '{"signature_name": "examples", "inputs": ["no proto"]}'), 400, ("arse",)),
    Case("rows no JSON", _predict("{"), 3, ("rows.json", "no JSON")),
    Case("rows no list", _predict('{"user_id": "u"}'), 3, ("list of objects",)),
    Case("rows of numbers", _predict("[1, 2]"), 3, ("list of objects", "[1, 2]")),
    Case("rows with an unknown feature", _predict('[{"user": "u"}]'), 2,
         ("'user'", "Did you mean 'user_id'")),
    Case("rows with text for a number", _predict('[{"item_price": "cheap"}]'), 2,
         ("rows[0]['item_price']", "a number", "cheap")),
    Case("rows with a short vector", _predict('[{"item_content": [1]}]'), 2,
         ("item_content", "8", "1")),
    Case("server absent", lambda b: b.run(
        "predict", "http://127.0.0.1:9/v1/models/m", "--rows",
        b.file("rows.json", "[{}]")), 3, ("cannot be reached", "server running")),
]  # fmt: skip

CASES = [*ROW_CASES, *FILES, *EXPERIMENTS, *FOLDERS, *REQUESTS]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What became of each bad row."""
    lines = {key: line.replace("KEY", key) for key, (line, *_) in CSV.items()}
    return preprocess_rows(
        tmp_path_factory.mktemp("rows"), {k: r[0] for k, r in ROWS.items()}, lines
    )


@pytest.fixture(scope="module")
def url(chain: Chain) -> Iterator[str]:
    """A server of the chain's model."""
    with running(chain.models, max_body_bytes=1 << 16) as address:
        yield address


@pytest.fixture
def bench(
    chain: Chain,
    tmp_path: pathlib.Path,
    tfmtl: Callable[..., Any],
    url: str,
    rows: dict[str, Answer],
) -> Bench:
    """What a case may use."""
    return Bench(chain, tmp_path, tfmtl, url, rows)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_malformed(case: Case, bench: Bench) -> None:
    answer = case.act(bench)
    assert answer.code == case.code, answer.text
    for word in case.words:
        assert word in answer.text, answer.text


def test_cases_are_distinct_and_many() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) > 100


def test_the_same_without_fault_is_accepted(bench: Bench) -> None:
    """Else a case might fail for another reason than the one it names."""
    assert bench.check_document(document()).code == 0
    assert bench.check_document(document(WIDE)).code == 0
    names = ("rows.parquet counts", "rows.csv counts")
    counts = [json.loads(bench.rows[name].text) for name in names]
    for count, cases in zip(counts, (ROWS, CSV), strict=True):
        dead = [c for _, c, _ in cases.values()].count("dead letter")
        assert count["rejected"] == dead
        assert count["read"] == 60 + len(cases) == count["written"] + dead
    assert set(GOOD) >= {"item", "price", "page", "clicked"}
