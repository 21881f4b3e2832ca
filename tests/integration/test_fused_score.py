"""The fused score of the small chain: exported, scored offline, served over REST."""

from __future__ import annotations

import base64
import json
import pathlib
import shutil
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.client import Client
from serving.server import running
from tests.integration.small import Chain
from tfmtl import workflow
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.fusion.scores import fuse
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.manifest import read_export, served_inputs

USED = ("click", "like", "watch_time")


@pytest.fixture(scope="module")
def exported(
    chain: Chain, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pathlib.Path, dict[str, Any]]:
    """A copy of the run with weights found, exported; and what was found."""
    folder = tmp_path_factory.mktemp("fused")
    shutil.copytree(chain.run, folder / "run")
    found = workflow.fuse(folder / "run", "click/ndcg@5", evaluations=24, form="sum")
    workflow.export(folder / "run", folder / "fused")
    return folder, found


def _outputs(table: Any) -> dict[str, np.ndarray]:
    return {name: table[name].to_numpy() for name in (*USED, "score")}


def test_the_card_says_what_the_score_is(exported: Any) -> None:
    folder, found = exported
    card = read_export(folder / "fused" / "1")
    assert card.fusion == FusionSpec.model_validate(found["fusion"])
    assert "to order by" in card.outputs["score"]
    assert "weighted sum of the outputs" in card.outputs["score"]


def test_offline_and_served_scores_are_numpys(
    exported: Any, chain: Chain, tmp_path: pathlib.Path
) -> None:
    folder, found = exported
    spec = FusionSpec.model_validate(found["fusion"])
    raw = pq.read_table(pathlib.Path(chain.logs).parent).slice(0, 50)
    card = read_export(folder / "fused" / "1")
    columns = sorted({i.column for i in card.inputs} | {"row_id"})
    pq.write_table(raw.select(columns), tmp_path / "rows.parquet")
    scores = {}
    for name, source in (("run", folder / "run"), ("export", folder / "fused")):
        output = tmp_path / f"{name}.parquet"
        workflow.score(source, str(tmp_path / "rows.parquet"), output)
        scores[name] = _outputs(pq.read_table(output))
    for outputs in scores.values():
        wanted = fuse({n: outputs[n] for n in USED}, spec)
        np.testing.assert_allclose(outputs["score"], wanted, rtol=1e-6)
        assert outputs["score"].std() > 1e-3
    rows = [
        {i.name: raw[i.column][n].as_py() for i in served_inputs(card.dataset)}
        for n in range(50)
    ]
    with running(folder / "fused") as url, Client(url, "fused") as client:
        answer = client.predict(rows)
        example = tf.train.Example().SerializeToString()
        text = base64.b64encode(example).decode()
        body = {
            "signature_name": "examples",
            "instances": [{"examples": {"b64": text}}],
        }
        served = httpx.post(f"{url}/v1/models/fused:predict", content=json.dumps(body))
    assert "score" in served.json()["predictions"][0]
    found_scores = np.array([row["score"] for row in answer])
    np.testing.assert_allclose(found_scores, scores["export"]["score"], rtol=1e-5)


def test_told_otherwise_the_export_has_no_score(
    exported: Any, chain: Chain, tmp_path: pathlib.Path
) -> None:
    folder, _ = exported
    card = workflow.export(folder / "run", tmp_path / "plain", fusion="configured")
    assert card.fusion is None and "score" not in card.outputs
    with pytest.raises(ConfigError, match="`fusion` is for a run"):
        workflow.score(
            folder / "fused", chain.logs, tmp_path / "x.parquet", fusion="none"
        )
    assert (pathlib.Path(tmp_path / "plain" / "1") / "saved_model.pb").is_file()


def test_ranks_are_served_but_not_scored_from_files(
    exported: Any, chain: Chain, tmp_path: pathlib.Path
) -> None:
    run = pathlib.Path(shutil.copytree(exported[0] / "run", tmp_path / "run"))
    workflow.fuse(run, "click/ndcg@5", evaluations=16, form="rank")
    workflow.score(run, chain.logs, tmp_path / "scores.parquet")
    assert "score" not in pq.read_schema(tmp_path / "scores.parquet").names
    report = workflow.evaluate(run, "test")
    assert report["fusion"]["form"] == "rank"
