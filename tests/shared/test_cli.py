import os
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

import fedcad.shared
from fedcad.shared import cli
from fedcad.shared.cli import (
    CLIENT_COMMANDS,
    COMMANDS,
    EXTRA_OF_MODULE,
    CommandFamily,
    CommandSource,
    app,
    load_command,
    run,
)
from fedcad.shared.errors import ConfigError
from fedcad.shared.version import __version__

ROOT = Path(fedcad.shared.__path__[0]).parent


def fedcad_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedcad.shared.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def command_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Put a command ``probe`` into the table, whose module is a real file with this body."""
    name = f"probe_{tmp_path.name}".replace("-", "_").replace("[", "_").replace("]", "_")
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, "probe", CommandSource(name, "probe", "A probe."))


def test_root_help_lists_every_command_with_its_summary() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert result.exit_code == 0
    for name, source in COMMANDS.items():
        assert name in result.stdout
        assert source.summary in result.stdout
    assert "no image leaves its hospital" in result.stdout


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_is_shown_when_asked_and_when_nothing_is(words: list[str]) -> None:
    assert "Usage: fedcad" in CliRunner().invoke(app, words, prog_name="fedcad").output


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"fedcad {__version__}\n")


HEAVY = [
    "torch",
    "flwr",
    "monai",
    "pydicom",
    "numpy",
    "scipy",
    "matplotlib",
    "ray",
    "pydantic",
    "yaml",
    "PIL",
]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["nonsense"], ["server", "--help"], ["client"], ["client", "strat"]],
)
def test_light_commands_load_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom fedcad.shared.cli import run\n"
        f"run({words!r})\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "HEAVY []"


def test_check_needs_no_torch() -> None:
    path = ROOT / "configs" / "studies" / "chest-xray-phantom.yaml"
    code = (
        "import sys\nfrom fedcad.shared.cli import run\n"
        f"run(['check', {str(path)!r}])\n"
        "print('HEAVY', [name for name in ('torch', 'flwr', 'monai', 'pydicom') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("simulat", "No such command 'simulat'. Did you mean 'simulate'?"),
        ("Check", "No such command 'Check'. Did you mean 'check'?"),
        (
            "nonsense",
            "No such command 'nonsense'. The commands are simulate, compare, models, check, schema, study, "
            "server, client.",
        ),
    ],
)
def test_an_unknown_command_suggests(
    word: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    assert run([word]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["server", "enroll"], "No such command 'enroll'. Did you mean 'enrol'?"),
        (["server", "doctor"], "No such command 'doctor'. Did you mean 'fedcad client doctor'?"),
        (["enrol"], "No such command 'enrol'. Did you mean 'fedcad server enrol'?"),
        (["init"], "Did you mean 'fedcad server init' or 'fedcad client init'?"),
        (["client", "zzz"], "The commands are init, request, join,"),
    ],
)
def test_an_unknown_command_of_a_family_suggests(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)
    assert run(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if isinstance(one, CommandFamily)])
def test_a_familys_help_lists_its_commands(name: str) -> None:
    family = COMMANDS[name]
    assert isinstance(family, CommandFamily)
    wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    output = CliRunner().invoke(app, [name, "--help"], env=wide, prog_name="fedcad").output
    assert f"Usage: fedcad {name}" in output
    for command, source in family.commands.items():
        assert command in output
        assert source.summary in output


def every_command() -> list[tuple[str, CommandSource]]:
    found: list[tuple[str, CommandSource]] = []
    for name, source in COMMANDS.items():
        family = source.commands.items() if isinstance(source, CommandFamily) else [(name, source)]
        found += [(name if one is source else f"{name} {inner}", one) for inner, one in family]
    return found


@pytest.mark.parametrize(("name", "source"), every_command(), ids=[name for name, _ in every_command()])
def test_every_command_loads_and_explains_itself(name: str, source: CommandSource) -> None:
    command = load_command(name, source)
    assert command.help
    assert all(getattr(each, "help", None) for each in command.params if each.name != "help")


def test_an_unknown_option_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--kin", "study", "x"]) == 2
    assert "--kind" in capsys.readouterr().err


def test_refusals_are_plain_words_on_stderr(tmp_path: Path) -> None:
    result = fedcad_process("check", str(tmp_path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {tmp_path}: got a folder; allowed: a YAML file\n"


@pytest.mark.parametrize(
    "body",
    [
        "import pydicom_absent_for_test\ndef probe() -> None: ...\n",
        "def probe() -> None:\n    'Probe.'\n    import pydicom_absent_for_test.sub\n",
    ],
    ids=["on loading", "on running"],
)
def test_a_missing_optional_part_is_named(
    body: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.EXTRA_OF_MODULE, "pydicom_absent_for_test", "client")
    command_from(monkeypatch, tmp_path, body)
    assert run(["probe"]) == 2
    assert capsys.readouterr().err == (
        "error: this command needs the Python package 'pydicom_absent_for_test', which is not installed; "
        "install FedCAD's part 'client': pip install 'fedcad[client]'\n"
    )


def test_a_missing_module_of_ours_is_a_defect_and_raises(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command_from(monkeypatch, tmp_path, "import fedcad.absent\ndef probe() -> None: ...\n")
    with pytest.raises(ModuleNotFoundError, match=r"fedcad\.absent"):
        run(["probe"])


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("import typer; raise typer.Exit(7)", 7, ""),
        ("import typer; raise typer.Abort()", 130, "interrupted\n"),
        (
            "from fedcad.shared.errors import DataError; raise DataError('no [red]data')",
            2,
            "error: no [red]data\n",
        ),
        (
            "raise PermissionError(13, 'Permission denied', '/runs')",
            2,
            "error: /runs: Permission denied; choose another folder, or ask for the permission\n",
        ),
        (
            "raise OSError(28, 'No space left on device')",
            2,
            "error: a file: No space left on device; make room on this disk, then give the command again "
            "(a simulation: with --resume)\n",
        ),
        ("pass", 0, ""),
    ],
)
def test_exit_codes(
    body: str,
    code: int,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_from(monkeypatch, tmp_path, f"def probe() -> None:\n    'Probe.'\n    {body}\n")
    assert run(["probe"]) == code
    assert capsys.readouterr().err.lstrip("\n") == error


@pytest.mark.parametrize("error", ["RuntimeError('defect')", "FileNotFoundError(2, 'defect', 'x')"])
def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str) -> None:
    command_from(monkeypatch, tmp_path, f"def probe() -> None:\n    raise {error}\n")
    with pytest.raises((RuntimeError, FileNotFoundError), match="defect"):
        run(["probe"])


def test_help_of_a_command_is_its_docstrings_prose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docstring = "First line\n    goes on.\n\n    Raises:\n        ConfigError: Never.\n    "
    body = f'def probe() -> None:\n    """{docstring}"""\n'
    command_from(monkeypatch, tmp_path, body)
    assert run(["probe", "--help"]) == 0
    out = capsys.readouterr().out
    assert "First line goes on." in out
    assert "ConfigError" not in out


@pytest.mark.parametrize("words", ["check nothing-there.yaml", "schema study", "--help"])
def test_a_reader_that_has_gone_is_no_error(words: str) -> None:
    command = f"{sys.executable} -m fedcad.shared.cli {words} | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr
    assert result.stdout.strip() in {"0", "1", "2"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    script = fedcad_process(_FEDCAD_COMPLETE=f"source_{shell}").stdout
    assert "_FEDCAD_COMPLETE=complete_" + shell in script
    assert "fedcad" in script


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fedcad ", set(COMMANDS)),
        ("fedcad sc", {"schema"}),
        ("fedcad schema ", {"study", "simulation", "site", "consortium"}),
        ("fedcad server en", {"enrol"}),
        ("fedcad client ", set(CLIENT_COMMANDS)),
        ("fedcad server sites --j", {"--json"}),
        ("fedcad check --k", {"--kind"}),
    ],
)
def test_completions(line: str, expected: set[str]) -> None:
    result = fedcad_process(
        _FEDCAD_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1)
    )
    assert set(result.stdout.split()) == expected, result.stderr


def test_every_distribution_of_the_optional_parts_is_known() -> None:
    """A new optional dependency needs a line in EXTRA_OF_MODULE."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    modules_of: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules_of.setdefault(canonicalize_name(distribution), set()).add(module)
    for extra in ("server", "client", "simulation"):
        for line in project["optional-dependencies"][extra]:
            name = canonicalize_name(Requirement(line).name)
            if name != "fedcad":
                known = [module for module in modules_of[name] if EXTRA_OF_MODULE.get(module) == extra]
                assert known, f"no module of {name} ({modules_of[name]}) is in EXTRA_OF_MODULE as {extra}"


def test_missing_extra_keeps_unknown_errors() -> None:
    error = ModuleNotFoundError("x", name="unheard_of")
    assert cli.missing_extra(error) is error
    assert not isinstance(error, ConfigError)


def test_app_is_a_typer_application() -> None:
    assert isinstance(app, typer.Typer)
