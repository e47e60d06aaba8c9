"""The one command, ``fedcad``.

Commands are loaded when they are called, not before: ``fedcad --help`` and completion must answer at once,
and a coordinator that never touches an image must not need the libraries that read them.
"""

import difflib
import errno
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import click
import typer
from typer.core import TyperCommand, TyperGroup

from fedcad.shared.errors import FedCADError, MissingExtraError
from fedcad.shared.version import __version__

_DISK_SAYS_NO = {
    errno.ENOSPC: "make room on this disk, then give the command again (a simulation: with --resume)",
    errno.EDQUOT: "make room in your quota, then give the command again (a simulation: with --resume)",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose another folder, or ask for the permission",
    errno.EPERM: "choose another folder, or ask for the permission",
}
"""Errors of the operating system that are no defect of FedCAD, with what to do."""
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
_CONTEXT = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True)
class CommandSource:
    """Where a command is, and what it does in one line."""

    module: str
    function: str
    summary: str


COMMANDS = {
    "simulate": CommandSource(
        "fedcad.simulations.cli", "simulate", "Run a study on emulated hospitals, on this machine."
    ),
    "compare": CommandSource("fedcad.simulations.cli", "compare", "Put several finished runs side by side."),
    "models": CommandSource(
        "fedcad.shared.models.cli", "models", "List the networks, or print one layer by layer with its costs."
    ),
    "check": CommandSource(
        "fedcad.shared.config.cli", "check", "Check a study, simulation or site file; show every mistake."
    ),
    "schema": CommandSource(
        "fedcad.shared.config.cli", "schema", "Print the JSON Schema of a kind of file, for your editor."
    ),
}

EXTRA_OF_MODULE = {
    "pydicom": "client",
    "jpeg_ls": "client",
    "openjpeg": "client",
    "gdcm": "client",
    "scipy": "client",
    "jinja2": "simulation",
    "matplotlib": "simulation",
    "PIL": "simulation",
    "ray": "simulation",
}
"""The optional part of FedCAD that brings a third-party module, by the module's import name."""


class LazyGroup(TyperGroup):
    """A group of commands that imports a command's module only to run it, show its help or complete it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table, which is the order of a newcomer's first steps."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a stand-in that knows its summary, enough for the list of commands."""
        source = COMMANDS.get(cmd_name)
        if source is None:
            return None
        return TyperCommand(cmd_name, help=source.summary, rich_markup_mode=self.rich_markup_mode)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the real command, loaded now."""
        try:
            name, stand_in, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            message = error.message.partition(" Did you mean")[0].rstrip(".")
            raise click.UsageError(f"{message}. {_suggestion(args[0])}", ctx) from error
        return name, load_command(name) if name and stand_in else stand_in, rest


def _suggestion(word: str) -> str:
    near = difflib.get_close_matches(word.lower(), COMMANDS, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"The commands are {', '.join(COMMANDS)}."


def load_command(name: str) -> click.Command:
    """Import the function behind a command and make a click command of it.

    Raises:
        MissingExtraError: It needs an optional part that is not installed.
    """
    source = COMMANDS[name]
    try:
        function = getattr(import_module(source.module), source.function)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name, help=_help_of(function), context_settings=_CONTEXT)(function)
    return typer.main.get_command(single)


def _help_of(function: Callable[..., Any]) -> str:
    """Return a docstring's prose, one line a paragraph, without its sections for programmers."""
    prose = re.split(
        r"^(?:Args|Returns|Raises|Guarantees|References):", inspect.getdoc(function) or "", flags=re.M
    )
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in prose[0].split("\n\n"))


def missing_extra(error: ModuleNotFoundError) -> Exception:
    """Return the error that names the extra to install; the error itself where no extra has the module."""
    module = (error.name or "").partition(".")[0]
    extra = EXTRA_OF_MODULE.get(module)
    if extra is None:
        return error
    return MissingExtraError(
        f"this command needs the Python package {module!r}, which is not installed; "
        f"install FedCAD's part {extra!r}: pip install 'fedcad[{extra}]'"
    )


app = typer.Typer(
    name="fedcad",
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    # A traceback with local variables could show patients' data.
    pretty_exceptions_enable=False,
    context_settings=_CONTEXT,
    help="Federated learning of computer-aided detection and diagnosis across hospitals.\n\n"
    "Several hospitals train one model together, and no image leaves its hospital. Describe a study in a "
    "YAML file, try it here on emulated hospitals, and read in the report whether each hospital gained.",
    epilog="First steps: fedcad simulate configs/simulations/chest-xray-phantom.yaml (needs no data). "
    "Each command has its own help: fedcad simulate --help",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fedcad {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run ``fedcad`` and leave the process with its exit code."""
    code = run(sys.argv[1:])
    sys.exit(code if _flush() else 1)


def run(arguments: list[str]) -> int:
    """Run one command line.

    Args:
        arguments: The words after ``fedcad``.

    Returns:
        Exit code: 0 done, 2 refused (usage, configuration, data, missing part), 130 interrupted. The reason
        is on stderr in plain words. Defects of FedCAD itself still raise, with their traceback.
    """
    command = typer.main.get_command(app)
    try:
        outcome: Any = command.main(args=arguments, prog_name="fedcad", standalone_mode=False)
    except click.ClickException as error:
        _show_usage_error(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except ModuleNotFoundError as error:
        reason = missing_extra(error)
        if reason is error:
            raise
        return _refused(str(reason))
    except FedCADError as error:
        return _refused(str(error))
    except OSError as error:
        if error.errno not in _DISK_SAYS_NO:
            raise
        return _refused(f"{error.filename or 'a file'}: {error.strerror}; {_DISK_SAYS_NO[error.errno]}")
    if outcome == EXIT_INTERRUPTED:
        return _interrupted()
    return outcome if isinstance(outcome, int) else 0


def _refused(reason: str) -> int:
    several = "\n" in reason
    click.secho("error:" if several else "error: ", fg="red", bold=True, nl=several, err=True)
    click.echo(reason, err=True)
    return EXIT_REFUSED


def _interrupted() -> int:
    click.echo("interrupted", err=True)
    return EXIT_INTERRUPTED


def _show_usage_error(error: click.ClickException) -> None:
    from typer import rich_utils

    rich_utils.rich_format_error(error)


def _flush() -> bool:
    """Push out what is left; False when the reader, for instance ``head``, has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


if __name__ == "__main__":
    main()
