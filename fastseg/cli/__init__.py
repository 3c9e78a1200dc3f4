"""The command line: parse, call the library, print, exit with a truthful code."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import sys
from enum import IntEnum

import click

from fastseg import __version__
from fastseg.errors import CordNotFound, FastsegError, InputError, OutputError

__all__ = ["Exit", "main", "program"]


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2  # options, networks or engines: nothing was tried
    SOME_FAILED = 3
    NONE_SUCCEEDED = 4
    NOTHING_MATCHED = 5
    INTERRUPTED = 130


# Command name -> module. Modules import heavy things inside their functions only: `fastseg --help` has to
# answer at once.
_COMMANDS = {
    "run": "run",
    "qc": "qc",
    "view": "view",
    "report": "report",
    "check": "check",
    "centerline": "centerline",
    "deepseg-sc": "deepseg_sc",
    "compare": "compare",
    "models": "models",
    "engines": "engines",
    "info": "info",
    "doctor": "doctor",
    "bench": "bench",
    "demo": "demo",
}


class _LazyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"fastseg.cli.{_COMMANDS[cmd_name]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="fastseg %(version)s")
def _cli() -> None:
    """Segment the spinal cord in MR volumes, fast.

    Research software, not a medical device.
    """


def program() -> None:
    """Run as the program of this process, and end it at once.

    Taking numba's and LLVM's objects apart would cost a fifth of a warm start, for nothing: all files are
    closed. Collecting garbage while modules are imported, and starting threads for a BLAS that nothing uses,
    would cost another tenth.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(100_000, 50, 50)
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # the reader may have gone
                stream.flush()
        os._exit(code)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends with SystemExit."""
    try:
        code = _cli.main(arguments, prog_name="fastseg", standalone_mode=False)
    except click.exceptions.Abort:
        code = _complain("interrupted", Exit.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (InputError, CordNotFound, OutputError) as error:
        code = _complain(error, Exit.NONE_SUCCEEDED)
    except FastsegError as error:
        code = _complain(error, Exit.USAGE)
    sys.exit(int(code or 0))


def _complain(what: object, code: Exit) -> Exit:
    click.echo(f"fastseg: error: {what}", err=True)
    return code
