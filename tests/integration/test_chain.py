"""From raw logs to predictions over REST, with everything but the export deleted."""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorflow.core.protobuf import saved_model_pb2

from serving.client import Client
from serving.server import running
from tests.integration.small import Chain
from tfmtl import workflow
from tfmtl._keras import tf
from tfmtl.schema.manifest import read_dataset, read_export, served_inputs

HELD_OUT = 1_000
OUTPUTS = ("click", "like", "like|click", "watch_time")


@dataclasses.dataclass(frozen=True)
class Served:
    """A server of the export, after the rest was deleted.

    Attributes:
        url: Of the server.
        version: The exported version's folder.
        rows: `HELD_OUT` raw rows of the test split, as rows for the client.
        table: The same rows as raw columns, without labels.
        expected: Output to the training graph's predictions for these rows.
        scored: What `score` said of `table`, with the run and with the export.
    """

    url: str
    version: pathlib.Path
    rows: list[dict[str, Any]]
    table: pa.Table
    expected: dict[str, np.ndarray]
    scored: dict[str, pa.Table]

    def client(self, **options: Any) -> Client:
        """A client of the model."""
        return Client(self.url, "small", **options)


@pytest.fixture(scope="module")
def served(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    workflow.evaluate(chain.run, "test", predictions_file=folder / "test.parquet")
    table, expected = _held_out(chain, folder / "test.parquet")
    spec = read_dataset(chain.dataset).dataset
    columns = sorted({i.column for i in served_inputs(spec)} | {"row_id"})
    pq.write_table(table.select(columns), folder / "rows.parquet")
    workflow.score(chain.run, str(folder / "rows.parquet"), folder / "run.parquet")
    shutil.copytree(chain.models, folder / "models" / "small")
    backup = folder / "backup"
    shutil.copytree(chain.root, backup)
    shutil.rmtree(chain.root)
    try:
        version = folder / "models" / "small" / "1"
        workflow.score(version, str(folder / "rows.parquet"), folder / "one.parquet")
        scored = {n: pq.read_table(folder / f"{n}.parquet") for n in ("run", "one")}
        inputs = {i.name: table[i.column].to_pylist() for i in served_inputs(spec)}
        rows = [
            {name: values[n] for name, values in inputs.items()}
            for n in range(table.num_rows)
        ]
        with running(folder / "models" / "small") as url:
            yield Served(url, version, rows, table.select(columns), expected, scored)
    finally:
        shutil.move(backup, chain.root)


def _held_out(
    chain: Chain, predictions: pathlib.Path
) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Raw rows of the test split, and the predictions for them, by row key."""
    found = pq.read_table(predictions).slice(0, HELD_OUT)
    raw = pq.read_table(pathlib.Path(chain.logs).parent)
    place = {str(key): n for n, key in enumerate(raw["row_id"].to_pylist())}
    table = raw.take([place[key] for key in found["row"].to_pylist()])
    assert table.num_rows == HELD_OUT
    return table, {n: found[f"prediction/{n}"].to_numpy() for n in OUTPUTS}


def _columns(predictions: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {n: np.array([p[n] for p in predictions]) for n in predictions[0]}


def _compare(found: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """Probabilities to 1e-6; seconds of watch time to as many digits."""
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6)


def test_rest_predictions_are_the_training_graphs(served: Served, chain: Chain) -> None:
    assert not chain.root.exists()
    with served.client() as client:
        found = _columns(client.predict(served.rows))
    _compare(found, served.expected)
    # The comparison is one of rows that differ, not of a constant.
    assert served.expected["click"].std() > 1e-3
    with pytest.raises(AssertionError):
        _compare(found, {k: np.roll(v, 1) for k, v in served.expected.items()})


@pytest.mark.parametrize("with_what", ["run", "one"])
def test_offline_scores_are_the_training_graphs(served: Served, with_what: str) -> None:
    table = served.scored[with_what]
    assert table["row"].to_pylist() == [
        str(v) for v in served.table["row_id"].to_pylist()
    ]
    assert table.column_names == ["row", *sorted(OUTPUTS)]
    _compare({n: table[n].to_numpy() for n in OUTPUTS}, served.expected)


def _example(row: dict[str, Any]) -> bytes:
    """A row as a serialized tf.Example; what is missing is left out."""
    features = {}
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        if value is None or not values:
            continue
        if isinstance(values[0], str):
            texts = tf.train.BytesList(value=[v.encode() for v in values])
            features[name] = tf.train.Feature(bytes_list=texts)
        elif isinstance(values[0], int):
            whole = tf.train.Int64List(value=values)
            features[name] = tf.train.Feature(int64_list=whole)
        else:
            real = tf.train.FloatList(value=values)
            features[name] = tf.train.Feature(float_list=real)
    message = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(message.SerializeToString())


def _post(served: Served, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(
        f"{served.url}/v1/models/small:predict", content=json.dumps(body), timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_examples_signature_agrees(served: Served) -> None:
    count = 100
    encoded = [
        {"b64": base64.b64encode(_example(r)).decode()} for r in served.rows[:count]
    ]
    body = {"signature_name": "examples", "inputs": encoded}
    found = _post(served, body)["outputs"]
    _compare(found, {k: v[:count] for k, v in served.expected.items()})


def test_missing_features_take_their_defaults(served: Served) -> None:
    empty = {"b64": base64.b64encode(_example({})).decode()}
    body = {"signature_name": "examples", "inputs": [empty]}
    by_example = _post(served, body)["outputs"]
    with served.client() as client:
        by_client = _columns(client.predict([{}]))
        explicit = client.predict([dict.fromkeys(served.rows[0])])
    _compare(by_example, by_client)
    _compare(_columns(explicit), by_client)
    assert np.isfinite(by_client["click"]).all()


def test_unknown_scenario_and_ids_are_answered(served: Served) -> None:
    row = served.rows[0]
    strange = [
        row | {"scenario": "never seen"},
        row | {"scenario": None},
        row | {"user_id": "nobody", "item_id": "nothing", "user_city": "Atlantis"},
        row | {"hist_item": ["?"], "hist_action": ["?"], "hist_age": [1e30]},
        row | {"item_price": -1e30, "shown": 2**62},
    ]
    with served.client() as client:
        known = client.predict([row])[0]
        found = client.predict(strange)
    for answer in found:
        assert all(np.isfinite(v) for v in answer.values())
        assert 0 <= answer["like"] <= answer["click"] <= 1
    # Null and a new value are both "another scenario", which is none of the known.
    assert found[0] == pytest.approx(found[1])
    assert found[0]["click"] != known["click"]


def test_a_long_sequence_keeps_the_newest(served: Served) -> None:
    row = max(served.rows, key=lambda r: len(r["hist_item"] or []))
    assert len(row["hist_item"]) > 5
    names = ("hist_item", "hist_action", "hist_age")
    newest = row | {n: row[n][-5:] for n in names}
    oldest = row | {n: row[n][:5] for n in names}
    with served.client() as client:
        long, last, first = client.predict([row, newest, oldest])
    assert long == pytest.approx(last, abs=1e-6)
    assert abs(long["click"] - first["click"]) > 1e-6


def _long_lists(served: Served) -> dict[str, Any]:
    """A row whose set and sequence hold more than the model reads, and gaps."""
    interests = sorted({v for r in served.rows for v in r["user_interests"] or []})
    row = max(served.rows, key=lambda r: len(r["hist_item"] or []))
    gaps = {n: [*row[n][:-1], None, row[n][-1]] for n in row if n.startswith("hist_")}
    return row | gaps | {"user_interests": [None, *interests * 9]}


def test_the_client_cuts_lists_as_the_graph_does(served: Served) -> None:
    row = _long_lists(served)
    with served.client() as client, served.client(sequence_length=20) as fixed:
        inputs = client.inputs()
        kept = {name: str(i.keep) for name, i in inputs.items() if i.is_list}
        cut, same = client.predict([row])[0], fixed.predict([row])[0]
    assert kept == {
        "user_interests": "first 20 of user_interests",
        "hist_item": "last 5 of hist_item",
        "hist_action": "last 5 of hist_item",
        "hist_age": "last 5 of hist_item",
    }
    whole = {name: dataclasses.replace(i, keep=None) for name, i in inputs.items()}
    with served.client(inputs=whole) as client:
        (uncut,) = client.predict([row])
    assert cut == pytest.approx(uncut, abs=1e-6)
    assert same == pytest.approx(uncut, abs=1e-6)


def test_a_short_length_keeps_the_first_of_a_set(served: Served) -> None:
    row = _long_lists(served)
    some = list(dict.fromkeys(v for v in row["user_interests"] if v))[:4]
    rows = [row | {"user_interests": v} for v in (some, some[:2], some[-2:])]
    with served.client(sequence_length=2) as client:
        long, first, last = client.predict(rows)
    assert long == pytest.approx(first, abs=1e-6)
    assert abs(long["click"] - last["click"]) > 1e-6


def test_padding_changes_nothing(served: Served) -> None:
    rows = served.rows[:50]
    with served.client(sequence_length=64) as padded, served.client() as plain:
        left, right = _columns(padded.predict(rows)), _columns(plain.predict(rows))
    _compare(left, right)


def test_every_output_has_a_batch_dimension(served: Served) -> None:
    loaded = tf.saved_model.load(str(served.version))
    for name in ("serving_default", "examples"):
        outputs = loaded.signatures[name].structured_outputs
        assert sorted(outputs) == sorted(OUTPUTS)
        for output, spec in outputs.items():
            assert spec.shape.rank >= 1 and spec.shape[0] is None, output
            assert not output.endswith("_bytes")


def test_only_stock_ops(served: Served) -> None:
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((served.version / "saved_model.pb").read_bytes())
    (graph,) = model.meta_graphs
    nodes = list(graph.graph_def.node)
    for function in graph.graph_def.library.function:
        nodes += function.node_def
    functions = {f.signature.name for f in graph.graph_def.library.function}
    used = {n.op for n in nodes} - functions
    # `raw_ops` is generated from TensorFlow's own ops; ops that a package registers by
    # loading a library (TFX-BSL, TF Text) are not in it.
    custom = {op for op in used if not hasattr(tf.raw_ops, op)}
    assert custom <= {"Const", "_Arg", "_Retval"}, sorted(custom)
    assert "LookupTableFindV2" in used and "MatMul" in used
    # An op that needs this Python process is stock, yet no server has it.
    assert not [op for op in used if "PyFunc" in op or "HostCompute" in op]


def test_model_card(served: Served) -> None:
    card = read_export(served.version)
    assert set(card.outputs) == set(OUTPUTS)
    assert card.steps > 0 and card.parameters > 0
    assert card.data["rows"].keys() == {"train", "validation", "test"}
    warmup = served.version / "assets.extra" / "tf_serving_warmup_requests"
    assert warmup.stat().st_size > 0


def test_predict_command(served: Served, tfmtl: Any, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(served.rows[:3]))
    result = tfmtl("predict", f"{served.url}/v1/models/small", "--rows", file)
    assert result.code == 0, result.err
    found = _columns(json.loads(result.out))
    _compare(found, {k: v[:3] for k, v in served.expected.items()})
