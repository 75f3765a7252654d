"""The `ubcp` program: picks the command, imports that one alone, and turns every error into words and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from typer.core import TyperArgument

from ubcp_p2p import __version__
from ubcp_p2p.cli.output import print_error, say
from ubcp_p2p.errors import Exit, LocalIOError, UbcpError
from ubcp_p2p.log import QUIET_LIBRARIES, printable

EXIT_BUG: Final = 70  # sysexits' EX_SOFTWARE: an error of ours must not read as "the thing checked is bad" (1)
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
EXIT_PIPE: Final = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class _Command:
    module: str
    function: str  # or a Typer: a command of several
    help: str  # here rather than in the function, so that `ubcp --help` imports no command


COMMANDS: Final[dict[str, _Command]] = {
    "init": _Command("ubcp_p2p.cli.init", "init", "Make this machine's keys and configuration."),
    "up": _Command("ubcp_p2p.cli.node", "up", "Run the node: join the network and serve until stopped."),
    "status": _Command("ubcp_p2p.cli.node", "status", "Say what the running node is doing."),
    "stop": _Command("ubcp_p2p.cli.node", "stop", "Stop the running node."),
    "api": _Command("ubcp_p2p.cli.api", "api", "Say where the running node's HTTP API is, for programs and curl."),
    "pause": _Command("ubcp_p2p.cli.owner", "pause", "Stop working for others, for some hours or until told."),
    "resume": _Command("ubcp_p2p.cli.owner", "resume", "Let a paused node work again."),
    "carbon": _Command("ubcp_p2p.cli.carbon", "carbon", "Show how much carbon the electricity here costs now."),
    "peers": _Command("ubcp_p2p.cli.node", "peers", "List the peers that the running node knows."),
    "bootstrap": _Command(
        "ubcp_p2p.cli.node", "bootstrap", "Run a seed node: it helps others meet, and trains nothing."
    ),
    "train": _Command("ubcp_p2p.cli.train", "train", "Train a recipe together with everyone in the same run."),
    "submit": _Command("ubcp_p2p.cli.submit", "submit", "Ask the community to train a recipe, and pay in credits."),
    "runs": _Command(
        "ubcp_p2p.cli.runs",
        "runs",
        "List the runs that the network knows, and what was asked for; show, fetch or stop one.",
    ),
    "leave": _Command("ubcp_p2p.cli.train", "leave", "Leave a run, saying so to the others."),
    "follow": _Command("ubcp_p2p.cli.follow", "follow", "Follow a live network's ledger and verify it as it comes."),
    "recipe": _Command("ubcp_p2p.cli.recipe", "recipe", "Show what can be trained; check a recipe of your own."),
    "charter": _Command(
        "ubcp_p2p.cli.charter", "charter", "A community's rules: write, sign, show and check its charter."
    ),
    "allocate": _Command("ubcp_p2p.cli.allocate", "allocate", "Decide which requests a slice serves, and say why."),
    "simulate": _Command(
        "ubcp_p2p.cli.simulate", "simulate", "Compare the allocator with other rules in a made-up community."
    ),
    "audit": _Command("ubcp_p2p.cli.audit", "audit", "Verify a ledger; name who cheated."),
    "verify": _Command("ubcp_p2p.cli.verify", "verify", "Verify evidence that a peer's work was not honest."),
    "credits": _Command("ubcp_p2p.cli.books", "credits_", "Show what an account can spend, and why."),
    "stats": _Command("ubcp_p2p.cli.stats", "stats", "Show how a community fares: waits, acceptance, work, carbon."),
    "ledger": _Command("ubcp_p2p.cli.ledger", "ledger", "The ledger: export, import and show it; make one to try."),
    "demo": _Command(
        "ubcp_p2p.cli.demo", "demo", "Show a whole community on this machine: ask, train, fail, recover, pay, audit."
    ),
}


@dataclass
class _Flags:
    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: sys.argv) and return its exit code. Never raises."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for name, value in QUIET_LIBRARIES.items():
        os.environ.setdefault(name, value)  # read by hivemind at import, by p2pd at start
    flags = _Flags()
    try:
        return _run(arguments, flags)
    except UbcpError as error:
        _trace(flags)
        print_error(error)
        return int(error.exit_code)
    except typer.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _trace(flags)
        say("ubcp: stopped")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return EXIT_PIPE
    except typer.TyperException as error:
        return _usage_error(error)
    except OSError as error:
        _trace(flags)
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print_error(LocalIOError(what, hint="run `ubcp --debug …` to see where it happened"))
        return int(Exit.IO)
    except Exception as error:  # the border of the program: words, not a traceback
        _trace(flags)
        print_error(
            UbcpError(
                f"a bug in ubcp: {type(error).__name__}: {error}", hint="report it with the output of `ubcp --debug …`"
            )
        )
        return EXIT_BUG


def entry() -> None:
    """Run the command line, and exit with its code."""
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        code = code or EXIT_PIPE
    raise SystemExit(code)


def _run(arguments: list[str], flags: _Flags) -> int:
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    command = typer.main.get_command(_build_app(wanted, flags))
    _show_no_types(command)
    with command.make_context("ubcp", arguments) as context:
        command.invoke(context)
    return int(Exit.OK)


def _build_app(wanted: str | None, flags: _Flags) -> typer.Typer:
    """All commands by name and help; only `wanted` is imported and has its parameters."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback(invoke_without_command=True)
    def _ubcp(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    ) -> None:
        """Train models together, peer to peer: a network of equals that share their computing power."""
        flags.debug = debug
        if version:
            print(f"ubcp {__version__}")
            raise typer.Exit(Exit.OK)
        if context.invoked_subcommand is None:
            say(context.get_help())
            raise typer.Exit(Exit.USAGE)

    for name, command in COMMANDS.items():
        if importlib.util.find_spec(command.module) is None:
            continue
        function = _load(command) if name == wanted else _not_imported
        if isinstance(function, typer.Typer):
            own = function.registered_callback  # of a command that does something itself, too
            app.add_typer(
                function, name=name, help=_full_help(command, own.callback) if own and own.callback else command.help
            )
        else:
            app.command(name, help=_full_help(command, function))(function)
    return app


class _Argument(TyperArgument):
    """Its metavar says what it is; Python's name for it ("<list[str]>") says nothing to a person."""

    def display_type_rich(self, ctx: object) -> None:
        """Nothing."""


def _show_no_types(command: object) -> None:
    """In the help of a command and of all below it."""
    for parameter in getattr(command, "params", ()):
        if isinstance(parameter, TyperArgument):
            parameter.__class__ = _Argument
    for below in getattr(command, "commands", {}).values():
        _show_no_types(below)


def _load(command: _Command) -> Callable[..., None] | typer.Typer:
    function: Callable[..., None] | typer.Typer = getattr(importlib.import_module(command.module), command.function)
    return function


def _not_imported() -> None:
    raise AssertionError("only the wanted command is ever invoked")


def _full_help(command: _Command, function: Callable[..., None]) -> str:
    """The list's one line, then the rest of the function's docstring (its first line says the same to programmers)."""
    if function is _not_imported or not function.__doc__:
        return command.help
    _, _, rest = function.__doc__.partition("\n")
    return f"{command.help}\n{rest}"


def _usage_error(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ubcp"
    print(f"ubcp: error: {printable(error.format_message())}", file=sys.stderr)
    print(f"ubcp: hint: see `{path} --help`", file=sys.stderr)
    return int(Exit.USAGE)


def _trace(flags: _Flags) -> None:
    if flags.debug:
        traceback.print_exc()


def _abandon_stdout() -> None:
    """The reader has gone: leave nothing for the interpreter to flush, or it prints an error of its own at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
