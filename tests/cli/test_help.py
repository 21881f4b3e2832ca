"""Every command there is: help, an example in it, and a quick start."""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

import tfmtl as package
from tfmtl.cli.main import cli

ROOT = pathlib.Path(package.__file__).parents[1]

EXPECTED = {
    "data list",
    "data prepare",
    "data download",
    "data simulate",
    "data describe",
    "data item-vectors",
    "preprocess",
    "train",
    "tune",
    "evaluate",
    "fuse",
    "diagnose",
    "score",
    "export",
    "serve",
    "predict",
    "config check",
    "config show",
    "config schema",
    "models",
    "balancers",
    "calibrate",
    "doctor",
    "demo",
}


def _walk(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _walk(child, (*path, name))


ALL = dict(_walk(cli))
LEAVES = {p: c for p, c in ALL.items() if not isinstance(c, click.Group)}


def _id(path: tuple[str, ...]) -> str:
    return " ".join(path) or "tfmtl"


def _examples(command: click.Command) -> list[str]:
    """The example's command lines that call tfmtl, continuation lines joined."""
    text = (command.epilog or "").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [line[line.index("tfmtl ") :] for line in lines if "tfmtl " in line]


def test_the_commands_are_those_of_the_manual():
    assert {_id(path) for path in LEAVES} == EXPECTED


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_help(tfmtl, path):
    for flag in ("--help", "-h") if not path else ("--help",):
        result = tfmtl(*path, flag)
        assert result.code == 0
        assert result.err == ""
        assert f"Usage: {' '.join(('tfmtl', *path))} " in result.out
        assert "Example:\n" in result.out
        assert f"tfmtl {' '.join(path)}".strip() in result.out.partition("Example:")[2]
        assert "--debug" in result.out


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_examples_parse(path):
    """Each example is a command line that click accepts, up to files that exist."""
    examples = _examples(ALL[path])
    assert examples
    for line in examples:
        line = re.split(r"\s[|>]\s|\s&&\s", line)[0]
        words = shlex.split(line, comments=True)[1:]
        command: click.Command = cli
        names = []
        while isinstance(command, click.Group) and words:
            names.append(words.pop(0))
            command = command.commands[names[-1]]
        with click.Context(command, info_name=names[-1], resilient_parsing=True) as ctx:
            parser = command.make_parser(ctx)
            values, _, _ = parser.parse_args(list(words))
        missing = [
            p.name
            for p in command.params
            if p.required and values.get(p.name or "") in (None, ())
        ]
        assert not missing, (line, missing)


@pytest.mark.parametrize("path", LEAVES, ids=_id)
def test_every_option_is_explained_or_plain(path):
    plain = {"seed", "split", "users", "items", "rest_port", "grpc_port", "server"}
    for parameter in LEAVES[path].params:
        if isinstance(parameter, click.Option) and parameter.name not in plain:
            assert parameter.help or parameter.show_default, parameter.opts


def test_no_arguments_show_the_help(tfmtl):
    result = tfmtl()
    assert result.code == 2
    assert "Commands:" in result.err


def test_version(tfmtl):
    assert tfmtl("--version").out == f"tfmtl, version {package.__version__}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from tfmtl.cli.main import main; assert main(['--help']) == 0\n"
        "heavy = {'tensorflow', 'apache_beam', 'numpy', 'pyarrow', 'pydantic'}\n"
        "print('heavy', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("heavy []")


def test_python_m_tfmtl():
    done = subprocess.run(
        [sys.executable, "-m", "tfmtl", "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("tfmtl, version ")
