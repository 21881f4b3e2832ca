"""The pages of docs/: their Python runs, their links lead somewhere, one is generated.

A Python block whose first line is a comment with a file name is that file; the others
are doctests, run in the order of the page, in a folder of their own.
"""

from __future__ import annotations

import doctest
import importlib.util
import json
import pathlib
import re
import sys

import pytest

from tfmtl.balance import BALANCERS, LossWeighting
from tfmtl.testing.conformance import ModelConformance

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.py)\n")
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [body for found, body in _BLOCK.findall(text) if found == language]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mypkg", "mydata"):
            del sys.modules[name]


def write_files(page: str, folder: pathlib.Path) -> list[str]:
    """Writes the files that a page shows; answers with its doctests."""
    rest = []
    for block in blocks(page, "python"):
        if match := _FILE.match(block):
            target = folder / match[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block)
        else:
            rest.append(block)
    return rest


@pytest.mark.parametrize(
    "page",
    ["data.md", "python.md", "new_model.md", "new_data.md", "balancers.md"],
)
def test_the_python_of_a_page_runs(page, folder):
    text = "\n".join(write_files(page, folder))
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    assert len(test.examples) > 4
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=_FLAGS).run(test, out=said.append)
    assert not said, "".join(said)


def test_every_balancer_is_in_a_table():
    rows = "".join(p.read_text(encoding="utf-8") for p in DOCS.glob("balancers*.md"))
    missing = [n for n in BALANCERS if not re.search(rf"^\|.*\b{n}\b", rows, re.M)]
    assert not missing


def test_the_model_of_the_page_conforms(folder):
    write_files("new_model.md", folder)
    from mypkg.test_models import TestSharedPlusOwn

    assert issubclass(TestSharedPlusOwn, ModelConformance)
    suite = TestSharedPlusOwn()
    suite.test_config_round_trip()
    suite.test_every_output_is_a_finite_float32_logit()
    suite.test_groups_partition_the_trainable_variables()
    suite.test_permuting_rows_permutes_outputs()
    suite.test_unknown_scenario()
    suite.test_every_variable_learns()


def test_the_balancer_of_the_page_weighs(folder):
    write_files("balancers.md", folder)
    from mypkg.inverse import Inverse

    from tests.unit.balance.properties import drawn, make, norms, weights_of

    weights = weights_of(make(Inverse, 3), drawn(3))
    assert abs(weights * norms(drawn(3)) - 1).max() < 1e-6


def test_the_page_of_balancers_names_all_on_gradients():
    text = (DOCS / "balancers.md").read_text(encoding="utf-8")
    for name, balancer in BALANCERS.items():
        if not issubclass(balancer, LossWeighting):
            assert text.count(f"\n| {name} |") == 2, name


def test_the_experiment_page_is_what_the_schema_says():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed = (DOCS / "experiment.md").read_text(encoding="utf-8")
    assert committed == module.render(), "run: python docs/generate.py"


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", h.lower()) for h in headings]
    return {h.replace(" ", "-") for h in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_request_of_the_serving_page_is_json():
    (body,) = blocks("serving.md", "json")
    columns = json.loads(body)["inputs"]
    assert {len(values) for values in columns.values()} == {1}


def test_the_changelog_has_the_version():
    import tfmtl

    text = (ROOT / "tfmtl" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{tfmtl.__version__}]" in text
