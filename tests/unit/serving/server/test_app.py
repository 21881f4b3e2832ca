"""The REST API against own expectations, and what it does with bad requests."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import math
import threading

import httpx
import pytest

from serving.server import running
from serving.server.servable import Servable
from tests.unit.serving.conftest import MISSING_TIME, NAME

PREDICT = f"/v1/models/{NAME}:predict"


def row(**changes):
    plain = {
        "user": "u1", "price": 3.0, "tags": ["a", "b"], "ages": [1.0, 2.0],
        "vector": [1.0, 2.0, 3.0], "time": 7,
    }  # fmt: skip
    return {**plain, **changes}


def test_row_form(http):
    rows = [row(), row(user="ü", price=0.5, tags=["a", ""])]
    answer = http.post(PREDICT, json={"instances": rows})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    first, second = answer.json()["predictions"]
    assert first["score"] == pytest.approx(2 * 3.0 + 2)
    assert second["score"] == pytest.approx(2 * 0.5 + 1)
    assert second["user"] == "ü"
    assert second["user_bytes"] == {"b64": base64.b64encode("ü".encode()).decode()}
    assert first["vector"] == [1.0, 2.0, 3.0]


def test_column_form_and_versions(http):
    columns = {name: [value] for name, value in row().items()}
    for version, scale in ((1, 1.0), (2, 2.0)):
        path = f"/v1/models/{NAME}/versions/{version}:predict"
        answer = http.post(path, json={"inputs": columns})
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"]["score"] == [pytest.approx(scale * 3.0 + 2)]


def test_nan_and_extreme_integers_survive(http):
    body = json.dumps({"instances": [row(price=math.nan, time=MISSING_TIME)]})
    assert "NaN" in body
    (answer,) = json.loads(http.post(PREDICT, content=body).text)["predictions"]
    assert answer["score"] == pytest.approx(2 * 10.0 + 2)
    assert answer["time"] == MISSING_TIME
    vector = json.dumps({"instances": [row(vector=[math.nan] * 3)]})
    (answer,) = json.loads(http.post(PREDICT, content=vector).text)["predictions"]
    assert all(math.isnan(value) for value in answer["vector"])


def test_signature_with_one_input_and_one_output(http):
    body = {"signature_name": "double", "instances": [1.0, 2.5]}
    assert http.post(PREDICT, json=body).json() == {"predictions": [2.0, 5.0]}
    body = {"signature_name": "double", "instances": [{"x": 1.0}]}
    assert http.post(PREDICT, json=body).json() == {"predictions": [2.0]}
    body = {"signature_name": "double", "inputs": [4.0]}
    assert http.post(PREDICT, json=body).json() == {"outputs": [8.0]}
    body = {"signature_name": "double", "inputs": {"x": [4.0]}}
    assert http.post(PREDICT, json=body).json() == {"outputs": [8.0]}


def test_output_without_batch_breaks_the_row_form_only(http):
    rows = {"signature_name": "total", "instances": [{"x": 1.0, "z": 2.0}]}
    refused = http.post(PREDICT, json=rows)
    assert refused.status_code == 400
    assert "no shape information" in refused.json()["error"]
    columns = {"signature_name": "total", "inputs": {"x": [1.0], "z": [2.0]}}
    assert http.post(PREDICT, json=columns).json()["outputs"]["total"] == 3.0


def test_the_graphs_own_error_is_400_without_python_lines(http):
    answer = http.post(PREDICT, json={"signature_name": "double", "instances": [-1.0]})
    assert answer.status_code == 400
    assert "x must not be negative" in answer.json()["error"]
    assert ".py" not in answer.json()["error"]


def test_classify_and_regress_need_their_signatures(http):
    for verb in ("classify", "regress"):
        answer = http.post(
            f"/v1/models/{NAME}:{verb}", json={"examples": [{"user": "u"}]}
        )
        assert answer.status_code == 400
        assert answer.json()["error"] == "Expected one input Tensor."


def test_metadata_and_status(http):
    metadata = http.get(f"/v1/models/{NAME}/metadata").json()
    assert metadata["model_spec"] == {
        "name": NAME, "signature_name": "", "version": "2",
    }  # fmt: skip
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    vector = signatures["serving_default"]["inputs"]["vector"]
    assert vector["dtype"] == "DT_FLOAT"
    assert vector["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}],
        "unknown_rank": False,
    }
    states = http.get(f"/v1/models/{NAME}").json()["model_version_status"]
    assert [(s["version"], s["state"]) for s in states] == [
        ("2", "AVAILABLE"), ("1", "AVAILABLE"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 400),
        ("GET", "/v1/nothing", 400),
        ("PUT", PREDICT, 400),
        ("POST", f"/v1/models/{NAME}/metadata", 400),
        ("POST", f"/v1/models/{NAME}/versions/99999999999999999999:predict", 400),
        ("POST", f"/v1/models/{NAME}/versions/3:predict", 404),
        ("GET", f"/v1/models/{NAME}/labels/stable", 400),
        ("GET", "/v1/models/other/metadata", 404),
    ],
)
def test_other_paths(http, method, path, status):
    answer = http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def _raw(**changes):
    return json.dumps({"instances": [row(**changes)]}).encode()


MALFORMED = {
    "empty": b"",
    "truncated": b'{"instances": [{"user": "u',
    "not UTF-8": _raw().replace(b"u1", b"\xff\xfe"),
    "byte order mark": b"\xef\xbb\xbf" + _raw(),
    "UTF-16": _raw().decode().encode("utf-16"),
    "deep list": b"[" * 200_000,
    "deep object": b'{"instances":' * 20_000,
    "deep and closed": b'{"instances":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep where shown": b'{"instances":{"a":' + b"[" * 900 + b"]" * 900 + b"}}",
    "deep value": _raw(price="@").replace(b'"@"', b"[" * 400 + b"1" + b"]" * 400),
    "integer of 5000 digits": _raw(time="@").replace(b'"@"', b"9" * 5000),
    "integer of 400 digits": _raw(price="@").replace(b'"@"', b"9" * 400),
    "integer beyond float32": _raw(price=2**24 + 1),
    "float beyond float32": _raw(price=1e39),
    "float beyond double": _raw(price="@").replace(b'"@"', b"1e999"),
    "integer for a string": _raw(user=5),
    "null for a string": _raw(user=None),
    "object for a float": _raw(price={"a": 1}),
    "object for a string": _raw(user={"a": 1}),
    "base64 of no string": _raw(user={"b64": 5}),
    "unpaired surrogate": _raw(user="@").replace(b"@", b"\\ud800"),
    "scalar for a list": _raw(tags="a"),
    "list for a scalar": _raw(price=[1.0]),
    "vector too long": _raw(vector=[1.0] * 4),
    "ragged list": _raw(tags=["a", ["b"]]),
    "control character": b'{"instances": ["\x00"]}',
    "trailing text": _raw() + b" x",
    "two documents": _raw() + _raw(),
    "comment": b"/* no */ {}",
    "single quotes": b"{'instances': []}",
    "a number": b"5",
    "null": b"null",
    "signature is a number": b'{"signature_name": 5, "instances": [1]}',
    "signature is empty of inputs": (
        b'{"signature_name": "__saved_model_init_op", "instances": [1]}'
    ),
    "row is a number": b'{"instances": [5]}',
    "row is null": json.dumps({"instances": [row(), None]}).encode(),
    "inputs is a list": b'{"inputs": [[1]]}',
    "inputs is null": b'{"inputs": null}',
    "ragged column": json.dumps(
        {"inputs": {**{k: [v, v] for k, v in row().items()}, "tags": [["a"], []]}}
    ).encode(),
    "unequal batches": json.dumps(
        {"inputs": {**{k: [v] for k, v in row().items()}, "vector": [[1.0]] * 2}}
    ).encode(),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_body_is_400(http, case):
    answer = http.post(PREDICT, content=MALFORMED[case])
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text
    assert len(answer.text) < 2000
    assert http.post(PREDICT, json={"instances": [row()]}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"examples": []},
        {"examples": 5},
        {"examples": [5]},
        {"examples": [{"a": None}]},
        {"examples": [{"a": [1, 1.5]}]},
        {"examples": [{"a": [[1]]}]},
        {"examples": [{"a": {"b": 1}}]},
        {"examples": [{"a": 2**63}]},
        {"examples": [{"a": 1e39}]},
        {"context": 5, "examples": [{"a": 1}]},
    ],
)
def test_malformed_examples_are_400(http, body):
    answer = http.post(f"/v1/models/{NAME}:regress", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


def test_unexpected_exception_is_500_without_traceback(http, monkeypatch):
    def fail(self, name, inputs):
        raise RuntimeError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(Servable, "run", fail)
        answer = http.post(PREDICT, json={"instances": [row()]})
    assert answer.status_code == 500
    assert answer.json() == {"error": "Internal error: RuntimeError"}
    assert http.post(PREDICT, json={"instances": [row()]}).status_code == 200


def test_body_limit(toy_versions):
    body = json.dumps({"instances": [row()]}).encode()
    with running(toy_versions, name=NAME, max_body_bytes=len(body)) as url:
        assert httpx.post(url + PREDICT, content=body).status_code == 200
        for content in (body + b" ", b" " * (100 * len(body)), iter([body, body])):
            answer = httpx.post(url + PREDICT, content=content)
            assert answer.status_code == 413
            assert set(answer.json()) == {"error"}
        assert httpx.post(url + PREDICT, content=body).status_code == 200


def test_slow_prediction_does_not_block_the_rest(http, toy_url, monkeypatch):
    entered, release = threading.Event(), threading.Event()
    run = Servable.run

    def slow(self, name, inputs):
        entered.set()
        assert release.wait(20)
        return run(self, name, inputs)

    monkeypatch.setattr(Servable, "run", slow)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        pending = pool.submit(
            httpx.post, toy_url + PREDICT, json={"instances": [row()]}
        )
        assert entered.wait(20)
        assert http.get(f"/v1/models/{NAME}").status_code == 200
        assert not pending.done()
        release.set()
        assert pending.result().status_code == 200


def test_keep_alive_survives_an_error(toy_url):
    with httpx.Client(base_url=toy_url) as client:
        for _ in range(3):
            assert client.post(PREDICT, content=b"{").status_code == 400
            assert client.post(PREDICT, json={"instances": [row()]}).status_code == 200
