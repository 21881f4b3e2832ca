"""The production files parse as what TensorFlow Serving reads them as, and agree."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import threading

import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)
from google.protobuf import wrappers_pb2 as _wrappers  # noqa: F401  (in the pool)
from tensorflow_serving.config import model_server_config_pb2

from serving.client import Client
from tests.conftest import ROOT

CONFIG = ROOT / "serving" / "config"
COMPOSE = ROOT / "serving" / "docker" / "compose.yaml"

_FIELD = descriptor_pb2.FieldDescriptorProto
# Fields of BatchingParameters and MonitoringConfig with their numbers, from TensorFlow
# Serving's session_bundle_config.proto and monitoring_config.proto: the API package
# does not carry these two.
_PROTOS = {
    "BatchingParameters": [
        ("max_batch_size", 1, ".google.protobuf.Int64Value"),
        ("batch_timeout_micros", 2, ".google.protobuf.Int64Value"),
        ("max_enqueued_batches", 3, ".google.protobuf.Int64Value"),
        ("num_batch_threads", 4, ".google.protobuf.Int64Value"),
        ("thread_pool_name", 5, ".google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, _FIELD.TYPE_INT64),
        ("pad_variable_length_inputs", 7, _FIELD.TYPE_BOOL),
    ],
    "PrometheusConfig": [
        ("enable", 1, _FIELD.TYPE_BOOL),
        ("path", 2, _FIELD.TYPE_STRING),
    ],
    "MonitoringConfig": [("prometheus_config", 1, ".tfmtl.test.PrometheusConfig")],
}


@pytest.fixture(scope="module")
def parse():
    file = descriptor_pb2.FileDescriptorProto(
        name="tfmtl_test.proto", package="tfmtl.test", syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )  # fmt: skip
    for name, fields in _PROTOS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number)
            added.label = _FIELD.LABEL_OPTIONAL
            if field == "allowed_batch_sizes":
                added.label = _FIELD.LABEL_REPEATED
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                added.type = kind
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(
        file.SerializeToString()
    )

    def read(name, message):
        found = pool.FindMessageTypeByName(f"tfmtl.test.{message}")
        made = message_factory.GetMessageClass(found)()
        return text_format.Parse((CONFIG / name).read_text(), made)

    return read


def test_models_config():
    config = text_format.Parse(
        (CONFIG / "models.config").read_text(),
        model_server_config_pb2.ModelServerConfig(),
    )
    (model,) = config.model_config_list.config
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_config(parse):
    config = parse("batching.config", "BatchingParameters")
    # Padding is done with the request's first value: it would forge histories.
    assert config.pad_variable_length_inputs is False
    client = inspect.signature(Client).parameters["batch_size"].default
    assert config.max_batch_size.value >= client
    assert 0 < config.batch_timeout_micros.value <= 10_000
    assert config.num_batch_threads.value >= 1
    assert config.max_enqueued_batches.value >= 1


def test_monitoring_config(parse):
    config = parse("monitoring.config", "MonitoringConfig")
    assert config.prometheus_config.enable
    assert config.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_parser_refuses_a_misspelt_field(parse, tmp_path, monkeypatch):
    (tmp_path / "batching.config").write_text("max_batchsize { value: 1 }")
    monkeypatch.setitem(globals(), "CONFIG", tmp_path)
    with pytest.raises(text_format.ParseError):
        parse("batching.config", "BatchingParameters")


def test_compose_file():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    models = (CONFIG / "models.config").read_text()
    for name, service in services.items():
        assert service["image"] == "tensorflow/serving:2.21.0"
        assert all(mount["read_only"] for mount in service["volumes"])
        targets = [mount["target"] for mount in service["volumes"]]
        assert targets == ["/models/ranker", "/config"]
        assert f'base_path: "{targets[0]}"' in models
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        check = service["healthcheck"]["test"]
        assert "GET /v1/models/ranker " in check[-1] and "AVAILABLE" in check[-1]
        assert "\r" not in check[-1] and "\\r\\n" in check[-1]
        assert service["logging"]["options"]["max-size"]
        flags = dict(flag.lstrip("-").split("=") for flag in service["command"])
        files = [value for value in flags.values() if value.startswith("/config/")]
        for file in files:
            assert (CONFIG / file.removeprefix("/config/")).is_file()
        batching = name == "serving-batching"
        assert ("enable_batching" in flags) == batching
        assert ("profiles" in service) == batching
        assert "monitoring_config_file" in flags and "model_config_file" in flags
        # models.config explains labels, which the server refuses at a start without.
        assert flags["allow_version_labels_for_unavailable_models"] == "true"


@pytest.mark.parametrize(
    ("state", "code", "healthy"),
    [
        ("AVAILABLE", "OK", True),
        ("END", "UNAVAILABLE", False),
        ("LOADING", "OK", False),
    ],
)
def test_health_check(state, code, healthy):
    """The compose file's own command, against the status as the server writes it."""
    entry = {"version": "1", "state": state, "status": {"error_code": code}}
    body = json.dumps({"model_version_status": [entry]}, indent=1).encode()
    (command,) = {
        tuple(service["healthcheck"]["test"])
        for service in yaml.safe_load(COMPOSE.read_text())["services"].values()
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer, args=(listener, body))
        thread.start()
        script = command[-1].replace("/8501", f"/{listener.getsockname()[1]}")
        done = subprocess.run([*command[1:-1], script], timeout=30)
        thread.join()
    assert (done.returncode == 0) == healthy


def _answer(listener, body):
    connection, _ = listener.accept()
    with connection:
        request = connection.makefile("rb")
        assert request.readline() == b"GET /v1/models/ranker HTTP/1.0\r\n"
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)
