"""The clients against the embedded server, and against servers that misbehave."""

from __future__ import annotations

import concurrent.futures
import http.server
import json
import math
import shutil
import socket
import ssl
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client import Client, GrpcClient, RequestRefused
from serving.rows import InputSpec
from serving.server import running
from serving.server.errors import RequestError
from serving.server.servable import Servable
from tests.conftest import ROOT
from tests.unit.serving.conftest import MISSING_TIME, NAME
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, ServingError

ROWS = [
    {"user": 5.0, "price": 3, "tags": ["a", "b"], "ages": [1, 2], "vector": [1, 2, 3]},
    {"tags": ["c"], "time": 99},
    {},
]


def check(predictions):
    """The answers of version 2 to ROWS."""
    assert [p["score"] for p in predictions] == [
        pytest.approx(v) for v in (2 * 3 + 2, 2 * 10 + 1, 2 * 10)
    ]
    assert [p["user"] for p in predictions] == ["5", "", ""]
    assert [p["tags"] for p in predictions] == ["a|b", "c|", "|"]
    assert [p["time"] for p in predictions] == [MISSING_TIME, 99, MISSING_TIME]
    assert predictions[0]["vector"] == [1.0, 2.0, 3.0]
    assert all(math.isnan(value) for value in predictions[1]["vector"])


def test_predict(toy_url):
    with Client(toy_url, NAME) as client:
        check(client.predict(ROWS))
        assert client.predict([]) == []


@pytest.mark.parametrize("suffix", ["", ":predict", "/", "/metadata"])
def test_models_own_url(toy_url, suffix):
    check(Client(f"{toy_url}/v1/models/{NAME}{suffix}").predict(ROWS))
    client = Client(f"{toy_url}/v1/models/{NAME}/versions/1{suffix}")
    assert client.predict(ROWS[:1])[0]["score"] == pytest.approx(1 * 3 + 2)


def test_version_status_and_metadata(toy_url):
    client = Client(toy_url, NAME, 1)
    assert client.predict(ROWS[:1])[0]["score"] == pytest.approx(1 * 3 + 2)
    assert [entry["version"] for entry in client.status()] == ["1"]
    assert client.metadata()["model_spec"]["version"] == "1"
    assert client.inputs()["vector"] == InputSpec("DT_FLOAT", (-1, 3))


def test_single_output_gets_its_name(toy_url):
    client = Client(toy_url, NAME, signature="double")
    assert client.predict([{"x": 1}, {"x": 2.5}]) == [{"y": 2.0}, {"y": 5.0}]


def test_chunks_keep_the_order_and_the_row_numbers(toy_url):
    client = Client(toy_url, NAME, signature="double", batch_size=7)
    predictions = client.predict([{"x": index} for index in range(50)])
    assert [p["y"] for p in predictions] == [2.0 * index for index in range(50)]
    rows = [{"x": 1}] * 20 + [{"x": "bad"}]
    with pytest.raises(ConfigError, match=r"rows\[20\]\['x'\]"):
        client.predict(rows)


def test_options(toy_url):
    client = Client(
        toy_url, NAME, defaults={"price": 1}, unknown="ignore", sequence_length=3
    )
    (answer,) = client.predict([{"label": 1, "tags": ["a", "b"]}])
    assert answer["score"] == pytest.approx(2 * 1 + 2)
    assert answer["tags"] == "a|b|"
    with pytest.raises(ConfigError, match="does not say which"):
        client.predict([{"tags": ["a", "b", "c", "d"]}])
    with pytest.raises(ConfigError, match="unknown key 'label'"):
        Client(toy_url, NAME).predict([{"label": 1}])


def test_given_inputs_spare_the_metadata_request(toy_url, monkeypatch):
    inputs = Client(toy_url, NAME).inputs()
    client = Client(toy_url, NAME, inputs=inputs)
    monkeypatch.setattr(Client, "metadata", lambda self: pytest.fail("asked"))
    check(client.predict(ROWS))


def test_server_errors_come_with_status_and_message(toy_url):
    with pytest.raises(ServingError, match=r"404.*Servable not found") as caught:
        Client(toy_url, "nobody").predict(ROWS)
    assert caught.value.status == 404
    client = Client(toy_url, NAME, signature="double")
    with pytest.raises(RequestRefused, match=r"400.*x must not be negative"):
        client.predict([{"x": -1}])
    with pytest.raises(ServingError, match=r"one of the model's: double, serving_def"):
        Client(toy_url, NAME, signature="nope").predict(ROWS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "localhost:8501", "model": "m"},
        {"url": "ftp://localhost", "model": "m"},
        {"url": "http://localhost:8501"},
        {"url": "http://localhost:8501/v1/models/"},
        {"url": "http://localhost", "model": "m", "batch_size": 0},
        {"url": "http://localhost", "model": "m", "sequence_length": 0},
        {"url": "http://localhost", "model": "m", "unknown": "drop"},
        {"url": "http://localhost", "model": "m", "retries": -1},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ConfigError, match=r"`(url|model|batch_size|unknown|retries)`"):
        Client(**arguments)


def test_one_row_instead_of_a_list(toy_url):
    with pytest.raises(ConfigError, match="`rows` must be a list"):
        Client(toy_url, NAME).predict({"user": "u"})


def test_no_server():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RequestRefused, match=r"cannot be reached.*refused"):
        Client(f"http://127.0.0.1:{port}", NAME).predict(ROWS)


def test_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RequestRefused, match=r"did not answer within 0.1 s"):
            Client(url, NAME, timeout=0.1).status()


METADATA = {
    "metadata": {
        "signature_def": {
            "signature_def": {
                "serving_default": {
                    "inputs": {
                        "x": {
                            "dtype": "DT_FLOAT",
                            "tensor_shape": {"dim": [{"size": "-1", "name": ""}]},
                        }
                    },
                    "outputs": {"y": {}},
                }
            }
        }
    }
}


class Scripted:
    """A server that gives the answers it was told to, one a request, and remembers."""

    def __init__(self, answers):
        self.answers, self.seen = list(answers), []
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                length = int(self.headers.get("Content-Length", 0))
                self.rfile.read(length)
                script.seen.append((self.command, self.path, dict(self.headers)))
                status, document = script.answers.pop(0)
                text = document if isinstance(document, str) else json.dumps(document)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = answer

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def asked(self):
        return [(method, path.rpartition("/")[2]) for method, path, _ in self.seen]


BUSY = (503, {"error": "The batch scheduling queue is full"})
GOOD = (200, {"outputs": [2.0]})
ASK, SEND = ("GET", "metadata"), ("POST", "m:predict")


def test_answer_that_is_no_json():
    with Scripted([(502, "<html>bad gateway</html>")]) as server:
        with pytest.raises(RequestRefused, match=r"502.*bad gateway") as caught:
            Client(server.url, NAME).status()
        assert caught.value.temporary


def test_nothing_is_sent_again_unless_told_to():
    with Scripted([(200, METADATA), BUSY]) as server:
        with pytest.raises(RequestRefused, match="queue is full") as caught:
            Client(server.url, "m").predict([{"x": 1}])
        assert (caught.value.status, caught.value.temporary) == (503, True)
        assert server.asked == [ASK, SEND]


def test_retries(monkeypatch):
    waits = []
    monkeypatch.setattr("serving.row_client.time.sleep", waits.append)
    with Scripted([BUSY, (200, METADATA), BUSY, BUSY, GOOD]) as server:
        client = Client(server.url, "m", retries=2)
        assert client.predict([{"x": 1}]) == [{"y": 2.0}]
        assert server.asked == [ASK, ASK, SEND, SEND, SEND]
    assert len(waits) == 3
    assert 0.025 <= waits[0] <= 0.05 and 0.05 <= waits[2] <= 0.1


def test_retries_end_and_are_for_what_passes(monkeypatch):
    monkeypatch.setattr("serving.row_client.time.sleep", lambda _: None)
    wrong = (500, {"error": "broken"})
    with Scripted([BUSY, BUSY, wrong]) as server:
        with pytest.raises(RequestRefused, match="queue is full"):
            Client(server.url, "m", retries=1).status()
        with pytest.raises(RequestRefused, match="broken"):
            Client(server.url, "m", retries=1).status()
    with pytest.raises(RequestRefused, match="cannot be reached") as caught:
        Client(server.url, "m", retries=1).status()
    assert caught.value.temporary


def test_an_overloaded_server_is_not_asked_for_its_inputs_as_well():
    answers = [(200, METADATA), GOOD, BUSY, GOOD]
    with Scripted(answers) as server:
        client = Client(server.url, "m")
        client.predict([{"x": 1}])
        with pytest.raises(RequestRefused):
            client.predict([{"x": 1}])
        client.predict([{"x": 1}])
        assert server.asked == [ASK, SEND, SEND, SEND]


def test_the_error_of_the_request_is_told_when_asking_for_the_inputs_fails():
    refused = (400, {"error": "x must not be negative"})
    with Scripted([(200, METADATA), GOOD, refused, BUSY, GOOD]) as server:
        client = Client(server.url, "m")
        client.predict([{"x": 1}])
        with pytest.raises(RequestRefused, match="must not be negative"):
            client.predict([{"x": -1}])
        # What was known of the inputs is known still.
        client.predict([{"x": 1}])
        assert server.asked == [ASK, SEND, SEND, ASK, SEND]


def test_labels_and_headers():
    with Scripted([(200, METADATA), GOOD, (200, METADATA), GOOD]) as server:
        given = Client(server.url, "m", label="a b", headers={"Authorization": "t"})
        given.predict([{"x": 1}])
        in_url = Client(f"{server.url}/v1/models/m/labels/canary:predict")
        in_url.predict([{"x": 1}])
        assert [path for _, path, _ in server.seen] == [
            "/v1/models/m/labels/a%20b/metadata",
            "/v1/models/m/labels/a%20b:predict",
            "/v1/models/m/labels/canary/metadata",
            "/v1/models/m/labels/canary:predict",
        ]
        assert [h.get("Authorization") for *_, h in server.seen] == ["t", "t"] + [
            None
        ] * 2
    with pytest.raises(ConfigError, match="`version` and `label`"):
        Client(server.url, "m", 1, label="canary")


def test_an_unknown_label_is_an_answer(toy_url):
    with pytest.raises(RequestRefused, match=r"400.*label: canary"):
        Client(toy_url, NAME, label="canary").predict(ROWS)


def test_certificates_are_the_callers_choice():
    class Strict(ssl.SSLContext):
        def wrap_socket(self, *args, **options):
            raise ssl.SSLError("I trust nobody")

    context = Strict(ssl.PROTOCOL_TLS_CLIENT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(RequestRefused, match="I trust nobody"):
            Client(url, "m", ssl_context=context).status()


def test_restarted_server_is_found_again(model_dir):
    root = model_dir(1)
    with running(root) as url:
        client = Client(url, NAME)
        client.predict(ROWS)
    port = int(url.rpartition(":")[2])
    with running(root, port=port):
        assert len(client.predict(ROWS)) == len(ROWS)


def test_new_version_with_other_inputs(tmp_path, toy_versions):
    """The client asks again for the inputs when a request no longer fits."""
    root = tmp_path / NAME
    shutil.copytree(toy_versions / "1", root / "1")

    class Other(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "price")])
        def predict(self, price):
            return {"score": price + 1}

    other = Other()
    with running(root, poll_seconds=0.05) as url:
        client = Client(url, NAME, unknown="ignore")
        rows = [{"user": "u", "price": 3.0}]
        assert client.predict(rows)[0]["score"] == pytest.approx(3.0)
        tf.saved_model.save(
            other, str(tmp_path / "new"), signatures={"serving_default": other.predict}
        )
        (tmp_path / "new").rename(root / "2")
        for _ in range(1000):
            # One answer: between two, version 2 may appear without being loaded.
            versions = client.status()
            if len(versions) == 2 and versions[0]["state"] == "AVAILABLE":
                break
            threading.Event().wait(0.02)
        # The column form ignores inputs too many; what changes is the answer.
        assert client.predict(rows) == [{"score": 4.0}]
        shutil.rmtree(root / "2")
        for _ in range(1000):
            if client.status()[0]["state"] != "AVAILABLE":
                break
            threading.Event().wait(0.02)
        fresh = Client(url, NAME, inputs={"price": InputSpec("DT_FLOAT", (-1,))})
        with pytest.raises(RequestRefused, match="Missing named input"):
            fresh.predict([{"price": 3.0}])
        # This client still believes in version 2: it asks again, and only then once.
        assert client.predict(rows)[0]["score"] == pytest.approx(3.0)
        stale = Client(url, NAME)
        stale._signature_json = client._signature_json | {"inputs": {}}
        assert stale.predict(rows)[0]["score"] == pytest.approx(3.0)


def test_threads_share_a_client(toy_url):
    client = Client(toy_url, NAME, signature="double")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.predict, ([{"x": x}] for x in range(64))))
    assert answers == [[{"y": 2.0 * x}] for x in range(64)]


def test_import_needs_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import serving.client\n"
        "added = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(*added - sys.stdlib_module_names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == {"serving", "tfmtl"}


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """What TensorFlow Serving does for these two calls, on our servable.

    Args:
        servable: The model.
        busy: So many requests are turned away before one is answered.
    """

    def __init__(self, servable, busy=0):
        self.servable, self.busy, self.labels = servable, busy, []

    def GetModelMetadata(self, request, context):
        assert list(request.metadata_field) == ["signature_def"]
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        return response

    def Predict(self, request, context):
        self.labels.append(request.model_spec.version_label)
        if self.busy:
            self.busy -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "queue is full")
        if request.model_spec.name != NAME:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        inputs = {name: tf.make_ndarray(p) for name, p in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        try:
            outputs = self.servable.run(request.model_spec.signature_name, inputs)
        except RequestError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        for name, array in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
        return response


@pytest.fixture
def servicer(toy_versions):
    servable = Servable(toy_versions / "2", 2)
    yield Servicer(servable)
    servable.close()


@pytest.fixture
def grpc_target(servicer):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_grpc_retries_and_labels(grpc_target, servicer, monkeypatch):
    monkeypatch.setattr("serving.row_client.time.sleep", lambda _: None)
    with GrpcClient(grpc_target, NAME, label="canary", retries=2) as client:
        servicer.busy = 2
        check(client.predict(ROWS))
        assert servicer.labels == ["canary"] * 3
        servicer.busy = 3
        with pytest.raises(RequestRefused, match="queue is full") as caught:
            client.predict(ROWS)
        assert caught.value.temporary
    with pytest.raises(ConfigError, match="`version` and `label`"):
        GrpcClient(grpc_target, NAME, 1, label="canary")


def test_grpc_with_credentials_speaks_tls(grpc_target):
    credentials = grpc.ssl_channel_credentials()
    with (
        GrpcClient(grpc_target, NAME, credentials=credentials, timeout=10) as client,
        # The server does not: the handshake fails.
        pytest.raises(RequestRefused, match="UNAVAILABLE"),
    ):
        client.predict(ROWS)


def test_grpc(grpc_target):
    with GrpcClient(grpc_target, NAME) as client:
        predictions = client.predict(ROWS)
        check(predictions)
        assert predictions[0]["user_bytes"] == b"5"
        with pytest.raises(ConfigError, match=r"rows\[0\]\['price'\]"):
            client.predict([{"price": "x"}])
    with GrpcClient(grpc_target, NAME, 2, signature="double") as client:
        assert client.predict([{"x": np.float32(2)}]) == [{"y": 4.0}]
        with pytest.raises(RequestRefused, match=r"INVALID_ARG.*negative") as caught:
            client.predict([{"x": -1}])
        assert caught.value.status == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    client = GrpcClient(grpc_target, "nobody")
    with pytest.raises(RequestRefused, match="NOT_FOUND"):
        client.predict(ROWS)
    client.close()


def test_rest_body_has_bare_nan_and_no_integer_floats(toy_url, monkeypatch):
    bodies = []
    exchange = Client._exchange

    def spy(self, method, path, body):
        bodies.append(body)
        return exchange(self, method, path, body)

    monkeypatch.setattr(Client, "_exchange", spy)
    Client(toy_url, NAME).predict(ROWS)
    sent = json.loads(bodies[-1])["inputs"]
    assert b"NaN" in bodies[-1]
    assert sent["price"][0] == 3.0 and type(sent["price"][0]) is float
    assert sent["tags"] == [["a", "b"], ["c", ""], ["", ""]]
