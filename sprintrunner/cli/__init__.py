"""The command line: what each command takes and says; the work is imported when a command runs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from ..errors import SprintRunnerError
from ..terminal import printable

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
#: Exit status when Ctrl-C ends a command that has nothing to put in order.
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the command was called: the folder given with ``--project``, or the current one."""

    start: Path

    def root(self) -> Path:
        """The root of the nearest project; raises ProjectError where there is none."""
        from .. import project

        return project.find_root(self.start)


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str:
    """``N``, ``all``, or nothing: then the setting decides."""
    if value is None or value == "all":
        return value or "default"
    if value.isascii() and value.isdigit() and 1 <= int(value[:4]) <= 998:
        return int(value)
    raise click.BadParameter("it must be a whole number from 1 to 998, or all")


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .. import __version__

        click.echo(f"sprintrunner {__version__}")
        ctx.exit()


@click.group(context_settings=_CONTEXT)
@click.option(
    "--project",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project, or a folder in it (default: the current folder).",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show it."
)
@click.pass_context
def cli(ctx: click.Context, folder: Path | None) -> None:
    """Carry the stories of a BMAD sprint from backlog to commit with a supervised coding agent."""
    ctx.obj = _Place((folder or Path.cwd()).absolute())


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (default: the setting, 8080).")
@click.option("--new-token", is_flag=True, help="Make a new access token and print a login link.")
@click.option("--resume", is_flag=True, help="Continue an interrupted batch.")
@click.pass_obj
def serve(place: _Place, host: str, port: int | None, new_token: bool, resume: bool) -> int:
    """Serve the dashboard and run the batches started there."""
    from .. import server

    return server.serve(place.root(), host=host, port=port, new_token=new_token, resume=resume)


@cli.command()
@click.argument("size", required=False, callback=_size, metavar="[N|all]")
@click.option("--story", "keys", multiple=True, metavar="KEY", help="Only this story; may be repeated.")
@click.option("--agent", metavar="NAME", help="The agent to use instead of the one in the settings.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON event a line.")
@click.pass_obj
def run(place: _Place, size: Any, keys: Sequence[str], agent: str | None, as_json: bool) -> int:
    """Run one batch of N cycles, or all, in this terminal.

    \b
    Exit status: 0 all selected stories done, 1 unexpected error, 2 usage or project error,
    3 stopped on request, 4 a story is blocked, 5 stopped by a limit.
    """
    from .run import run as carry_out

    return carry_out(place.root(), size, keys, agent, as_json)


@cli.command()
@click.option("--after-story", is_flag=True, help="Let the current story finish and be committed first.")
@click.pass_obj
def stop(place: _Place, after_story: bool) -> int:
    """Ask the running batch of this project to stop."""
    from . import ask

    return ask.stop(place.root(), after_story)


@cli.command()
@_json_option
@click.pass_obj
def status(place: _Place, as_json: bool) -> int:
    """Say what is running now."""
    from . import ask

    return ask.status(place.root(), as_json)


@cli.command()
@click.option("--batch", "batch_id", type=click.IntRange(1, 2**53), metavar="ID", help="Default: the newest.")
@_json_option
@click.pass_obj
def report(place: _Place, batch_id: int | None, as_json: bool) -> int:
    """Say what a batch did, and what needs you."""
    from . import ask

    return ask.report(place.root(), batch_id, as_json)


@cli.command()
@_json_option
@click.pass_obj
def doctor(place: _Place, as_json: bool) -> int:
    """Check everything a night's run needs, one line a check."""
    from . import ask

    return ask.doctor(place.start, as_json)


@cli.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Port to serve on."
)
@click.option(
    "--speed",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Pace of the rehearsal agent: 2 takes twice as long, 0 is instant.",
)
def demo(port: int, speed: float) -> int:
    """Run a whole sample sprint live, in a temporary folder."""
    from .. import demo as demonstration

    return demonstration.run(port, speed)


@cli.command("log")
@click.argument("report", metavar="JSON")
@click.pass_obj
def log(place: _Place, report: str) -> int:
    """For agents: report a task of the running command."""
    from . import agent_log

    return agent_log.log(place.start, report)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its number, never an exception in the middle of a run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status = int(cli.main(arguments, "sprintrunner", standalone_mode=False) or 0)
        # Here a reader that has gone is still an answer of ours; at the interpreter's end it is a complaint.
        sys.stdout.flush()
        return status
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _complain(f"{error.format_message().rstrip('.')}.{_where_to_look(error)}", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        from .views import let_go_of_output

        let_go_of_output()
        return 1
    except SprintRunnerError as error:
        return _complain(error.sentence, error.exit_status)
    except OSError as error:
        return _complain(f"The system refused: {error}.", 1)
    except Exception as error:
        traceback.print_exc()
        return _complain(f"Unexpected error, please report it: {type(error).__name__}: {error}", 1)


def _where_to_look(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" Try {context.command_path} --help." if context else ""


def _complain(sentence: str, status: int) -> int:
    print(f"sprintrunner: {printable(sentence)}", file=sys.stderr)
    return status
