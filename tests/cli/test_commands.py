"""What each light command prints; those that train are in tests/integration."""

from __future__ import annotations

import http.server
import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import load_experiment


def test_config_show_prints_what_a_run_would_use(tfmtl, experiment_file, tmp_path):
    result = tfmtl("config", "show", experiment_file, "--set", "training.epochs=3")
    assert result.code == 0 and result.err == ""
    shown = tmp_path / "shown.yaml"
    shown.write_text(result.out)
    assert load_experiment(shown).training.epochs == 3
    assert load_experiment(shown) == load_experiment(
        experiment_file, ["training.epochs=3"]
    )
    assert "patience: 2" in result.out


def test_config_check(tfmtl, experiment_file):
    result = tfmtl("config", "check", experiment_file)
    assert result.code == 0, result.err
    assert "is sound: tiny, 2 features, 2 tasks (click, buy), 2 scenarios" in result.out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.class=SharedBotom", "`model.class` must be one of"),
        ("model.config.nonsense=1", "model.config has 1 error"),
        ("balancer.class=Sum", "`balancer.class` must be one of"),
        ("training.epochs=0", "training.epochs: Input should be greater than"),
        ("dataset.tasks.buy.given=clik", "Did you mean 'click'?"),
    ],
)
def test_config_check_refuses(tfmtl, experiment_file, override, message):
    result = tfmtl("config", "check", experiment_file, "--set", override)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


_SEARCH = """
tuning:
  space:
    balancer.config.weights.buy: {type: float, min: 0.1, max: 10}
    training.batch_size: {type: int, min: 8, max: 64, scale: pow2}
"""


def test_config_check_tries_a_search(tfmtl, experiment_file):
    text = experiment_file.read_text() + _SEARCH
    experiment_file.write_text(text)
    result = tfmtl("config", "check", experiment_file)
    assert result.code == 0, result.err
    assert "a bayesian search over 2 settings for mean/auc" in result.out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weights.buy", "weights.sell", "'sell', which is no task"),
        ("min: 0.1", "min: 20", "an empty range"),
        ("min: 0.1", "min: low", "should be a valid number"),
        ("batch_size", "batch_sice", "= 8 makes no experiment: training.batch_sice"),
        ("training.batch_size", "model.config.x", "model.config.x = 8 makes no"),
        ("min: 8,", "min: 0,", "needs `min` > 0"),
        ("tuning:", "tuning:\n  constraints: [buy/auc >= 2]", "between 0 and 1"),
        ("tuning:", "tuning:\n  controls: [Magic]", "names 'Magic', which is no"),
    ],
)
def test_config_check_names_the_line_of_a_bad_search(
    tfmtl, experiment_file, old, new, message
):
    text = experiment_file.read_text() + _SEARCH.replace(old, new, 1)
    experiment_file.write_text(text)
    last = new.rpartition("\n")[2].strip()
    number = next(i for i, t in enumerate(text.split("\n"), 1) if last in t)
    result = tfmtl("config", "check", experiment_file)
    assert result.code == 2
    assert message in result.err
    assert result.err.rstrip().endswith(f"(line {number})"), result.err


def test_config_check_names_the_line_of_a_setting(tfmtl, experiment_file):
    document = yaml.safe_load(experiment_file.read_text())
    document["model"]["config"] = {"nonsense": 1}
    text = yaml.safe_dump(document)
    experiment_file.write_text(text)
    number = text[: text.index("nonsense")].count("\n") + 1
    result = tfmtl("config", "check", experiment_file)
    assert "nonsense: unknown key; legal keys" in result.err
    assert f"Received: 1 (line {number})" in result.err


def test_config_schema_is_the_schema_of_experiments(tfmtl, experiment_file):
    result = tfmtl("config", "schema")
    document = json.loads(result.out)
    assert document["title"] == "Experiment"
    assert document.pop("$schema").startswith("https://json-schema.org/")
    assert document == Experiment.model_json_schema(by_alias=True)
    assert tfmtl("config", "schema", experiment_file).out == result.out
    experiment_file.write_text("name: 1\n")
    assert tfmtl("config", "schema", experiment_file).code == 2


@pytest.mark.parametrize(
    ("command", "some"),
    [("models", {"SharedBottom", "MMoE", "SingleTask"}), ("balancers", {"Equal"})],
)
def test_catalogues(tfmtl, command, some):
    result = tfmtl(command, "--json")
    entries = json.loads(result.out)
    assert result.code == 0 and result.err == ""
    assert some <= {entry["name"] for entry in entries}
    for entry in entries:
        assert {"name", "summary", "citation"} <= set(entry)
        assert all(isinstance(v, str) and v for v in entry.values()), entry
    table = tfmtl(command)
    assert all(entry["name"] in table.out for entry in entries)


def test_doctor(tfmtl):
    result = tfmtl("doctor", "--json")
    report = json.loads(result.out)
    packages = {p["name"]: p for p in report["packages"]}
    assert result.code == 0, "the test environment has all that every command needs"
    assert packages["tensorflow"]["version"].startswith("2.21.")
    assert report["cpus"] >= 1 and report["memory_gib"] > 0
    assert isinstance(report["gpus"], list)
    text = tfmtl("doctor").out
    assert "processors" in text and "tensorflow-recommenders" in text


def test_doctor_says_how_to_get_what_is_missing(tfmtl, monkeypatch):
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name in ("apache-beam", "gensim", "rich"):
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "tf_keras" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    result = tfmtl("doctor", "--json")
    assert result.code == 3
    report = json.loads(result.out)
    states = {p["name"]: p["state"] for p in report["packages"]}
    assert (states["rich"], states["tf_keras"]) == ("missing", "another version")
    advice = "\n".join(report["advice"])
    assert "pip install 'tfmtl[pipeline]' brings: apache-beam\n" in advice
    assert "pip install 'tfmtl[w2v]' brings: gensim\n" in advice
    assert "tf_keras, rich" in advice


def test_data_list(tfmtl):
    entries = json.loads(tfmtl("data", "list", "--json").out)
    names = {entry["name"] for entry in entries}
    assert {"kuairand", "movielens-1m", "census-income", "ali-ccp"} <= names
    table = tfmtl("data", "list")
    assert table.code == 0 and all(name in table.out for name in names)


def test_data_prepare_names_what_there_is(tfmtl, tmp_path):
    out = tmp_path / "out"
    result = tfmtl("data", "prepare", "kuairnd", "--raw", tmp_path, "--out", out)
    assert result.code == 2
    assert "Did you mean 'kuairand'?" in result.err
    result = tfmtl("data", "prepare", "kuairand", "--raw", tmp_path, "--out", out)
    assert result.code == 3
    assert "log_standard" in result.err
    assert list(tmp_path.iterdir()) == []


def test_data_simulate_and_describe(tfmtl, tmp_path):
    out = tmp_path / "sim"
    command = ["data", "simulate", "--out", out, "--rows", 2000, "--seed", 3]
    result = tfmtl(*command, "--users", 200, "--items", 300)
    assert result.code == 0, result.err
    assert result.out.startswith("2,000 rows in ")
    assert "simulate: done in" in result.err
    again = tfmtl(*command)
    assert again.code == 2 and "--overwrite" in again.err

    described = json.loads(tfmtl("data", "describe", out / "logs", "--json").out)
    columns = {c["name"]: c for c in described}
    assert columns["scenario"]["rows"] == 2000
    assert columns["scenario"]["distinct"] == 3
    assert columns["scenario"]["top"][0][0] == "feed"
    assert columns["like"]["nulls"] > 0
    assert columns["hist_item"]["most"] <= 50
    table = tfmtl("data", "describe", out / "logs")
    assert "2,000 rows" in table.out and "hist_item" in table.out


def test_data_describe_of_nothing(tfmtl, tmp_path):
    result = tfmtl("data", "describe", tmp_path)
    assert result.code == 3 and "must be a Parquet or CSV file" in result.err
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 but no more")
    result = tfmtl("data", "describe", bad)
    assert result.code == 3 and "bad.parquet" in result.err
    assert "Traceback" not in result.err


VECTORS = """\
name: vectors
dataset:
  keys: {user: user, timestamp: time}
  split: {by: boundaries, validation_from: 10}
  tasks: [{name: click, label: clicked}]
  features:
    - {name: shown, kind: categorical, vocabulary: item}
    - name: hist
      kind: sequence
      columns: [{name: item, column: past, vocabulary: item}]
  vocabularies: {item: {}}
model: {class: DUPN}
"""


@pytest.fixture
def past_log(tmp_path):
    """An experiment file and a log of three users' past."""
    (tmp_path / "shop.yaml").write_text(VECTORS)
    past = [["a", "b", "a"], ["b", "a", "c"], ["a", "b", "late", "late"]]
    table = pa.table({"user": ["u", "v", "w"], "time": [1, 2, 11], "past": past})
    pq.write_table(table, tmp_path / "log.parquet")
    return tmp_path


def test_data_item_vectors(tfmtl, past_log):
    command = ("data", "item-vectors", past_log / "shop.yaml", "--column", "past")
    files = ("--input", past_log / "log.parquet", "--out", past_log / "v.parquet")
    result = tfmtl(*command, *files, "--size", 3)
    assert result.code == 0, result.err
    assert "2 items of 6 events in 2 sequences; 1 rarer ones" in result.out
    written = pq.read_table(past_log / "v.parquet").to_pydict()
    assert sorted(written["item"]) == ["a", "b"]
    assert [len(vector) for vector in written["vector"]] == [3, 3]

    # What it prints goes into the experiment file as it stands.
    tables, feature = result.out.splitlines()[-2:]
    document = yaml.safe_load((past_log / "shop.yaml").read_text())
    document["dataset"] |= yaml.safe_load(tables)
    document["dataset"]["features"] += yaml.safe_load(feature)["features"][:1]
    (past_log / "joined.yaml").write_text(yaml.safe_dump(document))
    dataset = load_experiment(past_log / "joined.yaml").dataset
    assert dataset.side_tables["item_vectors"].path == str(past_log / "v.parquet")
    assert dataset.side_tables["item_vectors"].feature == "shown"


def test_data_item_vectors_refuses(tfmtl, past_log):
    command = ("data", "item-vectors", past_log / "shop.yaml", "--out", "v.parquet")
    log = ("--input", past_log / "log.parquet")
    wrong = tfmtl(*command, *log, "--column", "user")
    assert wrong.code == 2
    assert "Received: 'user'; there are: ['past']" in wrong.err
    none = tfmtl(*command, "--input", past_log / "no.csv", "--column", "past")
    assert none.code == 2 and "matches no file" in none.err


def test_data_describe_of_csv(tfmtl, tmp_path):
    (tmp_path / "log.csv").write_text("user,price\na,1.5\nb,\na,2.5\n")
    columns = json.loads(tfmtl("data", "describe", tmp_path / "log.csv", "--json").out)
    assert [c["name"] for c in columns] == ["user", "price"]
    assert columns[0]["top"] == [["a", 2], ["b", 1]]
    assert (columns[1]["nulls"], columns[1]["mean"]) == (1, 2.0)


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["evaluate", "{folder}"], "run"),
        (["export", "{folder}", "--output", "{folder}/model"], "run"),
    ],
)
def test_a_folder_that_is_no_run(tfmtl, tmp_path, command, what):
    result = tfmtl(*[word.format(folder=tmp_path) for word in command])
    assert result.code == 3, result.err
    assert what in result.err and str(tmp_path) in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_train_on_a_folder_that_is_no_dataset(tfmtl, experiment_file, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    run = tmp_path / "run"
    result = tfmtl("train", experiment_file, "--dataset", empty, "--run", run)
    assert result.code == 3
    assert "must be a dataset directory with a dataset.json" in result.err
    assert not run.exists()


def test_serve_without_a_version(tfmtl, tmp_path):
    result = tfmtl(
        "serve", tmp_path, "--server", "embedded", "--rest-port", 0, "--name", "m"
    )
    assert result.code == 3, result.err
    assert "Traceback" not in result.err


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers metadata and predictions as TensorFlow Serving would, for one model."""

    def do_GET(self) -> None:
        price = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}]}}
        output = dict(price, name="StatefulPartitionedCall:0")
        signature = {
            "inputs": {"price": dict(price, name="price:0")},
            "outputs": {"click": output},
            "method_name": "tensorflow/serving/predict",
        }
        outer = {"signature_def": {"serving_default": signature}}
        self._answer({"metadata": {"signature_def": outer}})

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(length))
        inputs = request.get("inputs") or {
            "price": [row["price"] for row in request["instances"]]
        }
        prices = inputs["price"] if isinstance(inputs, dict) else inputs
        key = "outputs" if "inputs" in request else "predictions"
        self._answer({key: [price / 2 for price in prices]})

    def _answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/models/shop"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("wrapped", [False, True])
def test_predict(tfmtl, url, tmp_path, wrapped):
    rows = [{"price": 3.0}, {"price": 5.0}]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"instances": rows} if wrapped else rows))
    result = tfmtl("predict", url, "--rows", file)
    assert result.code == 0, result.err
    assert json.loads(result.out) == [{"click": 1.5}, {"click": 2.5}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold a list of objects"),
        ('{"price": 1}', "must hold a list of objects"),
        ("[{]", "is no JSON"),
        ('[{"prize": 1}]', "price"),
    ],
)
def test_predict_with_bad_rows(tfmtl, url, tmp_path, text, message):
    file = tmp_path / "rows.json"
    file.write_text(text)
    result = tfmtl("predict", url, "--rows", file)
    assert result.code in (2, 3) and message in result.err
    assert result.out == "" and "Traceback" not in result.err


def test_predict_without_a_server(tfmtl, tmp_path):
    file = tmp_path / "rows.json"
    file.write_text("[{}]")
    result = tfmtl("predict", "http://127.0.0.1:1/v1/models/m", "--rows", file)
    assert result.code == 3
    assert "127.0.0.1:1" in result.err


def test_score_without_input_files(tfmtl, tmp_path):
    result = tfmtl("score", tmp_path, "--input", "*.nothing", "--output", "s.parquet")
    assert result.code in (2, 3)
    assert "Traceback" not in result.err


def test_preprocess_without_input_files(tfmtl, experiment_file, tmp_path):
    out = tmp_path / "out"
    pattern = tmp_path / "*.parquet"
    result = tfmtl("preprocess", experiment_file, "--input", pattern, "--output", out)
    assert result.code in (2, 3)
    assert "*.parquet" in result.err and "Traceback" not in result.err
    assert not out.exists()


def test_experiment_files_may_be_toml(tfmtl, experiment_file, tmp_path):
    document = yaml.safe_load(experiment_file.read_text())
    file = tmp_path / "e.json"
    file.write_text(json.dumps(document))
    first = tfmtl("config", "show", experiment_file).out
    assert tfmtl("config", "show", file).out == first


def test_describe_counts_values_within_lists(tfmtl, tmp_path):
    table = pa.table({"tags": pa.array([["a", "b"], ["a"], None, []])})
    pq.write_table(table, tmp_path / "t.parquet")
    column = json.loads(tfmtl("data", "describe", tmp_path, "--json").out)[0]
    assert column["top"] == [["a", 2], ["b", 1]]
    assert (column["nulls"], column["most"], column["mean"]) == (1, 2.0, 1.0)
