"""The command line: the only folder that sees every other one. Each command has a file, loaded when it is called."""

import importlib
import sys

import click

from timetrial.engine.errors import Error

_COMMANDS = {
    "run": "race a submission on workloads and record every trial",
    "score": "make a leaderboard, and a report, of recorded trials",
    "check": "say everything about a submission that can be said without a race",
    "list": "show workloads, submissions or suites",
    "data": "fetch and convert the data that workloads need",
    "tune": "find out how kernels run fastest on this machine's GPU",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"timetrial.engine.cli.{_MODULES.get(name, name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Help texts stand here as well, so that `timetrial --help` loads no command.
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


_MODULES = {"list": "listing"}


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="timetrial")
def timetrial() -> None:
    """A stopwatch-strict benchmark engine for neural-network training algorithms.

    \b
    A first race, and its leaderboard:
      timetrial run nadamw --suite pocket --framework torch --out runs
      timetrial score runs --html report.html
    """


def main() -> None:
    """The console script. An error of ours is one sentence and exit code 2."""
    try:
        timetrial.main(standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "timetrial: interrupted; `timetrial run … --resume` continues where this stopped", err=True
        )
        sys.exit(130)
    except Error as error:
        click.echo(f"timetrial: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"timetrial: {error}", err=True)
        sys.exit(1)
