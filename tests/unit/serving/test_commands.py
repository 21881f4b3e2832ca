"""`tfmtl serve` and `tfmtl predict`: what the options do."""

from __future__ import annotations

import json

import pytest

from serving import launch as launching
from tests.unit.serving.conftest import NAME


@pytest.fixture
def settings(monkeypatch):
    """What `tfmtl serve` hands on, instead of serving."""
    seen = {}
    monkeypatch.setattr(launching, "launch", lambda *_, **options: seen.update(options))
    return seen


def test_serve_limits_the_size_of_a_request(tfmtl, settings, tmp_path):
    assert tfmtl("serve", tmp_path).code == 0
    assert settings["max_body_bytes"] is None
    assert settings["host"] == "127.0.0.1"
    assert tfmtl("serve", tmp_path, "--max-body-mib", 2).code == 0
    assert settings["max_body_bytes"] == 2 * 2**20
    refused = tfmtl("serve", tmp_path, "--max-body-mib", 0)
    assert refused.code == 2 and "--max-body-mib" in refused.err


def test_serve_says_what_listens_where(tfmtl):
    shown = " ".join(tfmtl("serve", "--help").out.split())
    assert "listens on every interface, whatever --host says" in shown
    assert "[default: 64]" in shown


def test_predict_writes_null_for_what_is_no_number(tfmtl, toy_url, tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text('[{"user": "u", "price": 3}]')
    result = tfmtl("predict", f"{toy_url}/v1/models/{NAME}", "--rows", rows)
    assert result.code == 0, result.err
    (answer,) = json.loads(result.out)
    assert answer["score"] == pytest.approx(6)
    assert answer["vector"] == [None] * 3
