"""The command `davsql`: its subcommands, and the one place where errors become exit codes.

Exit codes: 0 done, 1 failed (a sentence on standard error says why), 2 wrong usage, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from davsql import __version__
from davsql.cli.printing import printable
from davsql.errors import DavsqlError

FAILED = 1
INTERRUPTED = 130

# Command -> where it is. Imported when it is called: `davsql ls` need not load a web server.
COMMANDS = {
    "audit": "davsql.cli.audit:audit",
    "backup": "davsql.cli.backup:backup",
    "cert": "davsql.cli.cert:cert",
    "check": "davsql.cli.check:check",
    "decrypt": "davsql.cli.encrypt:decrypt",
    "doctor": "davsql.cli.doctor:doctor",
    "encrypt": "davsql.cli.encrypt:encrypt",
    "export": "davsql.cli.export:export",
    "import": "davsql.cli.import_:import_",
    "init": "davsql.cli.init:init",
    "key": "davsql.cli.key:key",
    "ls": "davsql.cli.ls:ls",
    "maintain": "davsql.cli.maintain:maintain",
    "migrate": "davsql.cli.migrate:migrate",
    "restore": "davsql.cli.restore:restore",
    "serve": "davsql.cli.serve:serve",
    "stats": "davsql.cli.stats:stats",
    "token": "davsql.cli.token:token",
    "user": "davsql.cli.user:user",
}


class _Commands(click.Group):
    """The subcommands, each imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="davsql %(version)s")
def davsql() -> None:
    """A network drive in one SQLite file.

    \b
    Examples:
      davsql serve                                serve davsql.db on http://127.0.0.1:8080/
      davsql import ~/Documents --to /Documents   copy a folder into the store
      davsql check --deep                         verify every byte
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        code = davsql.main(args=arguments, prog_name="davsql", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _failed("stopped", INTERRUPTED)
    except DavsqlError as error:
        return _failed(str(error), FAILED)
    except BrokenPipeError:
        # Whoever read our output (`| head`) has enough; let nothing be flushed into it when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The entry point of the program."""
    sys.exit(run())


def _failed(message: str, code: int) -> int:
    click.echo(f"davsql: {printable(message)}", err=True)
    return code
