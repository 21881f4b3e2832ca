"""What a Beam worker, the client and the adapters import must not bring TensorFlow."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tfmtl

_ROOT = str(__import__("pathlib").Path(tfmtl.__file__).parents[1])
_HEAVY = ("tensorflow", "tf_keras", "keras", "apache_beam", "tensorflow_transform")


@pytest.mark.parametrize(
    "statement",
    [
        "import tfmtl; tfmtl.Experiment; tfmtl.load_experiment",
        "import tfmtl.schema.load, tfmtl.schema.manifest",
        "import tfmtl.adapters.simulate, tfmtl.adapters.profile",
        "import tfmtl.adapters.catalogue",
        "import serving.client",
        "import tfmtl.cli.main",
        "import tfmtl.tuning.space, tfmtl.tuning.goals",
        "import tfmtl.fusion.search, tfmtl.fusion.objective, tfmtl.fusion.table",
    ],
)
def test_import_is_free_of_tensorflow(statement):
    code = f"import sys; {statement}\nprint(sorted(set(sys.modules) & set({_HEAVY!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=_ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_check_would_see_tensorflow():
    code = "import sys, types; sys.modules['tensorflow'] = types.ModuleType('t')"
    code += f"; print(sorted(set(sys.modules) & set({_HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['tensorflow']"


def test_public_names_resolve():
    light = set(tfmtl.__all__) - {"workflow", "models", "balance"}
    assert {name for name in light if getattr(tfmtl, name) is not None} == light
    assert set(dir(tfmtl)) == set(tfmtl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tfmtl.nothing  # noqa: B018
