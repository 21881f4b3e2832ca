"""Every architecture of the catalogue keeps what the trainer and the export rely on."""

from __future__ import annotations

from tests.conformance.catalogue import ENTRIES
from tfmtl.models import MODELS
from tfmtl.testing.conformance import ModelConformance


def test_every_model_has_an_entry() -> None:
    assert set(ENTRIES) == set(MODELS)


for _name, _entry in ENTRIES.items():
    globals()[f"Test{_name}"] = type(
        f"Test{_name}", (ModelConformance,), {"model": MODELS[_name], **_entry}
    )
