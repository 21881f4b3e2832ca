"""The embedded server against requests and answers recorded from TensorFlow Serving.

The recording lies beside the repository, with the script that writes the model it was
made on; TFMTL_SERVING names another folder. Without it the tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.server import running
from tests.conftest import ROOT

FOLDER = pathlib.Path(
    os.environ.get("TFMTL_SERVING", ROOT.parent / "shared" / "serving")
)
TRANSCRIPTS = FOLDER / "transcripts.json"


def _cases() -> list[Any]:
    if not TRANSCRIPTS.exists():
        reason = f"no {TRANSCRIPTS.name} at {FOLDER}; set TFMTL_SERVING to its folder"
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=reason))]
    cases = json.loads(TRANSCRIPTS.read_text())["cases"]
    return [pytest.param(case, id=case["case"]) for case in cases]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    script = FOLDER / "make_model.py"
    spec = importlib.util.spec_from_file_location("make_model", script)
    assert spec is not None and spec.loader is not None
    make_model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_model)
    directory = tmp_path_factory.mktemp("transcripts") / "ranker"
    make_model.write(str(directory), 1, 0.5)
    make_model.write(str(directory), 2, 0.25)
    with (
        running(directory, versions="all") as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


def same(left: Any, right: Any) -> bool:
    """Equal JSON, numbers to 1e-6, NaN equal to NaN; an integer is no float."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (
            left == right
            or (math.isnan(left) and math.isnan(right))
            or math.isclose(left, right, rel_tol=0, abs_tol=1e-6)
        )
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key]) for key in left
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize("case", _cases())
def test_transcript(case: dict[str, Any], server: httpx.Client) -> None:
    if "raw_body" in case:
        content = case["raw_body"]
    else:
        content = None if case["body"] is None else json.dumps(case["body"])
    headers = dict(header.split(": ") for header in case.get("headers", ()))
    answer = server.request(
        case["method"], case["path"], content=content, headers=headers
    )
    assert answer.status_code == case["status"], answer.text
    assert answer.headers["content-type"].partition(";")[0] == case["content_type"]
    if "text" in case:
        assert answer.text == case["text"]
        return
    expected, got = case["json"], json.loads(answer.text)
    if set(expected) == {"error"}:
        assert set(got) == {"error"}
        assert isinstance(got["error"], str) and got["error"]
    else:
        assert same(got, expected), got


def test_comparison_sees_small_differences() -> None:
    assert same({"a": [1.0, math.nan]}, {"a": [1.0 + 5e-7, math.nan]})
    assert not same({"a": [1.0]}, {"a": [1.00001]})
    assert not same({"a": 9007199254740993}, {"a": 9007199254740992})
    assert not same({"a": 1}, {"a": 1.0})
    assert not same({"a": math.nan}, {"a": 0.0})
    assert not same({"a": [1, 2]}, {"a": [1]})
