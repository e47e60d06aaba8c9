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
from collections.abc import Callable, Mapping
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


Table = Mapping[str, "CommandSource | CommandFamily"]


@dataclass(frozen=True)
class CommandFamily:
    """Commands under one word, such as ``fedcad server``, and whom they are for."""

    summary: str
    commands: Mapping[str, CommandSource]


_SITES = "fedcad.server.commands.sites"
_CONSORTIUM = "fedcad.server.commands.consortium"
_STUDIES = "fedcad.server.commands.studies"
_VIEW = "fedcad.server.commands.studies_view"
_NODE = "fedcad.client.commands.node"
_ENROLMENT = "fedcad.client.commands.enrolment"

SERVER_COMMANDS = {
    "init": CommandSource(_CONSORTIUM, "init", "Make a consortium: its folder, keys and certificates."),
    "enrol": CommandSource(_SITES, "enrol", "Take a site into the consortium by its request."),
    "sites": CommandSource(_SITES, "sites", "List the sites, their fingerprints and certificates."),
    "renew": CommandSource(_SITES, "renew", "Renew the certificate of a site, or of the server."),
    "revoke": CommandSource(_SITES, "revoke", "Exclude a site from now on."),
    "start": CommandSource(
        "fedcad.server.commands.run", "start", "Run the coordinator, and keep it running."
    ),
    "stop": CommandSource("fedcad.server.commands.run", "stop", "Stop the coordinator, or one study."),
    "submit": CommandSource(_STUDIES, "submit", "Sign a frozen study and start it."),
    "status": CommandSource(_VIEW, "status", "Show the coordinator, its studies and their sites."),
    "watch": CommandSource(_VIEW, "watch", "Watch a study live until it has ended."),
    "pause": CommandSource(_STUDIES, "pause", "Let a study rest after the round that is going on."),
    "resume": CommandSource(_STUDIES, "resume", "Let a paused or stopped study go on."),
    "logs": CommandSource(_VIEW, "logs", "Show what the coordinator's processes logged."),
    "result": CommandSource(_VIEW, "result", "Write a study's model and report, as they are now."),
    "amend": CommandSource(_STUDIES, "amend", "Make a new version of a study; shows what changes."),
    "backup": CommandSource(_CONSORTIUM, "backup", "Save everything into one file, keys included."),
    "restore": CommandSource(_CONSORTIUM, "restore", "Make the folder anew from a backup."),
}
"""Commands of the coordinator, in the order of their first use."""

CLIENT_COMMANDS = {
    "init": CommandSource(_ENROLMENT, "init", "Make a hospital node's folder and its site.yaml."),
    "request": CommandSource(
        _ENROLMENT, "request", "Make the site's keys and its request to the coordinator."
    ),
    "join": CommandSource(_ENROLMENT, "join", "Install what the coordinator returned."),
    "doctor": CommandSource(
        "fedcad.client.commands.doctor", "doctor", "Check whether this node can work: a go/no-go list."
    ),
    "start": CommandSource(_NODE, "start", "Run the node, and keep it running."),
    "stop": CommandSource(_NODE, "stop", "Stop the node."),
    "status": CommandSource(_NODE, "status", "Show whether the node runs, is connected, and what it does."),
    "result": CommandSource(
        "fedcad.client.commands.result", "result", "Show a finished study's model and this site's own test."
    ),
}
"""Commands of a hospital node, in the order of their first use."""

STUDY_COMMANDS = {
    "freeze": CommandSource(
        "fedcad.client.commands.study",
        "freeze",
        "Freeze a study into a contract, where models are installed.",
    ),
}
"""Commands for those who write studies."""

COMMANDS: dict[str, CommandSource | CommandFamily] = {
    "simulate": CommandSource(
        "fedcad.simulations.cli", "simulate", "Run a study on emulated hospitals, on this machine."
    ),
    "compare": CommandSource("fedcad.simulations.cli", "compare", "Put several finished runs side by side."),
    "models": CommandSource(
        "fedcad.shared.models.cli", "models", "List the networks, or print one layer by layer with its costs."
    ),
    "check": CommandSource(
        "fedcad.shared.config.cli", "check", "Check a configuration file; show every mistake."
    ),
    "schema": CommandSource(
        "fedcad.shared.config.cli", "schema", "Print the JSON Schema of a kind of file, for your editor."
    ),
    "study": CommandFamily("Prepare a study for real hospitals.", STUDY_COMMANDS),
    "server": CommandFamily("Coordinate a consortium of real hospitals.", SERVER_COMMANDS),
    "client": CommandFamily("Run a hospital's node.", CLIENT_COMMANDS),
}
"""Every command. A new one needs a line here, and a function with a docstring in the module that it names."""

EXTRA_OF_MODULE = {
    "pydicom": "client",
    "jpeg_ls": "client",
    "openjpeg": "client",
    "gdcm": "client",
    "scipy": "client",
    "prometheus_client": "server",
    "sqlalchemy": "server",
    "uvicorn": "server",
    "jinja2": "simulation",
    "matplotlib": "simulation",
    "PIL": "simulation",
    "ray": "simulation",
}
"""The optional part of FedCAD that brings a third-party module, by the module's import name."""


class LazyGroup(TyperGroup):
    """A group of commands that imports a command's module only to run it, show its help or complete it."""

    table: Table = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the table, which is the order of a newcomer's first steps."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a family of commands, or a stand-in that knows its summary, enough for the list."""
        source = self.table.get(cmd_name)
        if source is None:
            return None
        if isinstance(source, CommandFamily):
            return _family(cmd_name, source)
        return TyperCommand(cmd_name, help=source.summary, rich_markup_mode=self.rich_markup_mode)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the real command, loaded now."""
        try:
            name, found, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            message = error.message.partition(" Did you mean")[0].rstrip(".")
            raise click.UsageError(f"{message}. {_suggestion(args[0], self.table)}", ctx) from error
        source = self.table.get(name) if name else None
        if name and isinstance(source, CommandSource):
            return name, load_command(name, source), rest
        return name, found, rest


def _family(name: str, family: CommandFamily) -> LazyGroup:
    """Return the group of a family's commands."""
    group = LazyGroup(
        name=name,
        help=family.summary,
        no_args_is_help=True,
        rich_markup_mode="rich",
        context_settings=_CONTEXT,
    )
    group.table = family.commands
    return group


def _suggestion(word: str, table: Table) -> str:
    elsewhere = [
        f"'fedcad {name} {word}'"
        for name, source in COMMANDS.items()
        if isinstance(source, CommandFamily) and word in source.commands
    ]
    if elsewhere:
        return f"Did you mean {' or '.join(elsewhere)}?"
    near = difflib.get_close_matches(word.lower(), table, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"The commands are {', '.join(table)}."


def load_command(name: str, source: CommandSource) -> click.Command:
    """Import the function behind a command and make a click command of it.

    Raises:
        MissingExtraError: It needs an optional part that is not installed.
    """
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
    "Each command has its own help: fedcad simulate --help. A real consortium: fedcad server --help, "
    "fedcad client --help",
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
