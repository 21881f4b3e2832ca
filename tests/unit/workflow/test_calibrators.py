"""Corrections of sampling that a loss cannot have are refused before training."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.calibration.test_sampling import manifest
from tfmtl.errors import ConfigError
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.workflow.calibrators import check_sampling

OTHERS: dict[str, Any] = {
    "focal": "focal",
    "l2r": "l2r",
    "jrc": "jrc",
    "bpr": {"name": "bpr", "within": "group"},
    "list_softmax": "list_softmax",
    "listnet": "listnet",
    "listmle": "listmle",
}


def sampled(correction: str, **losses: Any) -> DatasetManifest:
    """Of a funnel whose clicks are kept, as far as it is named, with these losses."""
    made = manifest(correction)
    document = made.dataset.model_dump()
    tasks = [t for t in document["tasks"] if t["name"] in losses]
    document["tasks"] = [{**t, "loss": losses[t["name"]]} for t in tasks]
    document["keys"]["group"] = "request"
    return made.model_copy(
        update={"dataset": type(made.dataset).model_validate(document)}
    )


@pytest.mark.parametrize("correction", ["export", "training"])
@pytest.mark.parametrize("name", OTHERS)
def test_no_offset_of_what_is_no_log_odds(correction: str, name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"correction: {correction}.*only `loss: bce`.*'{name}'"
    ):
        check_sampling(sampled(correction, click=OTHERS[name]), refit=False)


@pytest.mark.parametrize("name", OTHERS)
def test_any_loss_where_no_logit_is_moved(name: str) -> None:
    for correction in ("weights", "none"):
        check_sampling(sampled(correction, click=OTHERS[name]), refit=False)
    if name == "jrc":
        return  # Of two logits a row, which no funnel multiplies.
    for correction in ("export", "training"):
        # Purchases among clicks: all rows are there, so nothing is to be corrected.
        made = sampled(correction, click="bce", buy=OTHERS[name])
        check_sampling(made, refit=False)


def test_no_refit_on_a_mixture_of_rates() -> None:
    with pytest.raises(ConfigError, match="no rate to correct"):
        check_sampling(manifest("weights"), refit=True)
    check_sampling(manifest("weights", 1.0, scenario_rates={}), refit=True)
