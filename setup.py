"""Packaging of tfmtl: `pip install .`, or `make setup` for a pinned environment."""

from __future__ import annotations

import ast
import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent


def _version() -> str:
    """The `__version__` of tfmtl/__init__.py, read without importing it."""
    tree = ast.parse((ROOT / "tfmtl" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        names = [ast.unparse(t) for t in getattr(node, "targets", [])]
        if isinstance(node, ast.Assign) and names == ["__version__"]:
            return str(ast.literal_eval(node.value))
    raise RuntimeError("tfmtl/__init__.py has no line `__version__ = ...`")


def _readme() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# protobuf stays at 6.x: TensorFlow alone would take 7, TensorFlow Transform needs 6.
CORE = [
    "tensorflow==2.21.*",
    "tf_keras==2.21.*",
    "tensorboard==2.21.*",
    "tensorflow-recommenders==0.7.7",
    "tensorflow-serving-api>=2.19,<3",
    "keras-tuner==1.4.8",
    "pydantic>=2.14,<3",
    "pyyaml>=6,<7",
    "click>=8.2,<9",
    "rich>=13",
    "pyarrow>=18",
    "numpy>=2,<3",
    "scipy>=1.14",
    "scikit-learn>=1.6",
    "starlette>=1,<2",
    "uvicorn>=0.40",
    "grpcio>=1.71",
    "protobuf>=6,<7",
]
PIPELINE = ["apache-beam==2.77.*", "tensorflow-transform==1.21.*", "pandas>=2.2"]
PLOT = ["matplotlib>=3.9"]
TEST = ["pytest>=9", "pytest-xdist>=3.8", "hypothesis>=6.150", "httpx>=0.28,<1"]
LINT = [
    "ruff>=0.17",
    "mypy>=2.4",
    "import-linter>=2.5",
    "types-PyYAML",
    "setuptools>=77",
    "wheel",
]

setup(
    name="tfmtl",
    version=_version(),
    description="Multi-task, multi-scenario ranking on TensorFlow: from raw logs to a "
    "served prediction",
    long_description=_readme(),
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["tfmtl*", "pipeline*", "serving*"]),
    package_data={
        "tfmtl": ["experiments/*.yaml", "CHANGELOG.md", "py.typed"],
        "serving": [
            "config/*",
            "docker/*",
            "docker/.env*",
            "*.config",
            "*.yml",
            "*.yaml",
            "*.proto",
        ],
    },
    install_requires=CORE,
    extras_require={
        "pipeline": PIPELINE,
        "plot": PLOT,
        "test": [*PIPELINE, *TEST],
        "all": [*PIPELINE, *PLOT, *TEST, *LINT],
    },
    entry_points={"console_scripts": ["tfmtl = tfmtl.cli.main:main"]},
)
