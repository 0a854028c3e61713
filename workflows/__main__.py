"""`python -m workflows`: runs workflows on a ComfyUI server unattended, one or thousands, and brings the results back."""

import argparse
import asyncio
import json
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

from flux_core.errors import Flux1Error

from .check import check_on_server
from .connection import Connection, RunError, ServerGone
from .graph import API_FORMAT, Graph, check_graph, title
from .jobs import Job, batch, picture_input, pictures_in
from .journal import journal
from .progress import Progress, say
from .runner import Runner
from .settable import settings, shortest, with_texts
from .source import bundled, find_source

EXITS = """exit codes:
  0    every job is done
  1    jobs have failed; the same command tries these again
  2    nothing was sent: the command line, the workflow or the server's nodes and files do not fit
  3    the server was not there, or was lost and did not come back; the same command goes on
  130  stopped by Ctrl-C; the same command goes on"""
DONE, FAILED, UNFIT, GONE, STOPPED = 0, 1, 2, 3, 130

EXAMPLES = """examples:
  python -m workflows run text_to_image_dev --set prompt="a red fox in snow" --repeat 20 --out foxes
  python -m workflows run canny_control --images sketches --set "Paint.steps=30" --out painted
  python -m workflows run my_workflow_api.json --server http://192.168.0.5:8188

A journal beside the results notes what became of every job. However a batch ends, the same command goes on where it
was: what is done is not done again, what a server still has is waited for, and the rest is sent.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        return options.command(options)
    except ServerGone as error:
        code, text = GONE, str(error)
    except RunError:
        code, text = UNFIT, "The server refused the first job, so no other one was sent."
    except Flux1Error as error:
        code, text = UNFIT, str(error)
    except OSError as error:
        code, text = UNFIT, str(error)
    except KeyboardInterrupt:
        code, text = STOPPED, "Stopped. The same command goes on from here."
    print(text, file=sys.stderr)
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workflows", description=__doc__.split(": ")[1].capitalize())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, what: str, **more: object) -> argparse.ArgumentParser:
        form = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=what, description=what, formatter_class=form, **more)

    command("list", "name the bundled workflows").set_defaults(command=list_bundled)

    inputs = command("inputs", "show what can be set in a workflow, and its defaults")
    inputs.add_argument("workflow", metavar="WORKFLOW", help="a bundled workflow's name or a file in API format")
    inputs.set_defaults(command=list_inputs)

    run = command("run", "run a workflow, once or as a batch", epilog=f"{EXAMPLES}\n{EXITS}")
    run.add_argument("workflow", metavar="WORKFLOW", help="a bundled workflow's name or a file")
    run.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="another value for an input; `inputs WORKFLOW` lists the names; for a picture, a file on this machine",
    )  # fmt: skip
    run.add_argument("--images", metavar="[NAME=]FOLDER", help="run once for each picture of the folder")
    run.add_argument("--repeat", type=positive, default=1, metavar="N", help="run N times with successive seeds")
    run.add_argument("--out", type=Path, default=Path("output"), metavar="FOLDER", help="results (default: output)")
    run.add_argument("--journal", type=Path, metavar="FILE", help="default: journal.jsonl beside the results")
    run.add_argument(
        "--server", type=address, default="http://127.0.0.1:8188", metavar="ADDRESS",
        help="where ComfyUI is (default: %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--wait", type=float, default=300, metavar="SECONDS",
        help="how long to wait for a server that is not there or was lost (default: %(default)s)",
    )  # fmt: skip
    run.add_argument(
        "--ahead", type=positive, default=50, metavar="N",
        help="how many jobs to have in the server's queue at a time (default: %(default)s)",
    )  # fmt: skip
    run.set_defaults(command=lambda options: asyncio.run(run_batch(options)))
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def address(text: str) -> str:
    url = urlsplit(text if "://" in text else f"http://{text}")
    if url.scheme not in ("http", "https") or not url.hostname or url.path not in ("", "/"):
        raise argparse.ArgumentTypeError(f"{text!r} is no server's address such as http://127.0.0.1:8188")
    return f"{url.scheme}://{url.netloc}"


def list_bundled(options: argparse.Namespace) -> int:
    for name in bundled():
        print(f"{name:<24} {find_source(name).headline}")
    return DONE


def list_inputs(options: argparse.Namespace) -> int:
    source = find_source(options.workflow)
    if source.graph is None:
        raise Flux1Error(
            "The inputs of this workflow can't be listed", file=source.name, expected=API_FORMAT,
            found="the graph editor's own format", fix="export it with Workflow > Export (API)",
        )  # fmt: skip
    every = settings(source.graph)
    for key, own in groupby(every, key=lambda setting: setting.node):
        node = source.graph[key]
        print(f"{title(node)} ({node['class_type']})")
        for setting in own:
            value = setting.value if isinstance(setting.value, str) and setting.value else json.dumps(setting.value)
            print(f"  {shortest(setting, every):<36} {textwrap.shorten(value, 76, placeholder=' ...')}")
    return DONE


async def run_batch(options: argparse.Namespace) -> int:
    """Everything that can be known without the server is checked before it is asked anything."""
    source = find_source(options.workflow)
    jobs = jobs_of(source.name, source.graph, options) if source.graph else []
    async with Connection(options.server) as server:
        await server.until_there(options.wait, say)
        infos = await server.get("/object_info")
        jobs = jobs or jobs_of(source.name, source.api(infos), options)
        check_on_server(jobs[0].graph, infos, source.models, source.packs)
        options.out.mkdir(parents=True, exist_ok=True)
        with journal(options.journal or options.out / "journal.jsonl") as state, Progress(len(jobs)) as progress:
            runner = Runner(server, jobs, state, options.out, progress, options.ahead, options.wait)
            before = runner.ended
            await runner.run()
    done = len(jobs) - len(runner.failed)
    say(f"{done} of {len(jobs)} jobs are done{f', {before} of them before' if before else ''}. Results: {options.out}")
    if runner.failed:
        say(f"{len(runner.failed)} failed: {', '.join(runner.failed)}. The same command tries them again.")
    return FAILED if runner.failed else DONE


def jobs_of(name: str, graph: Graph, options: argparse.Namespace) -> list[Job]:
    """Raises Flux1Error for options that do not fit the workflow."""
    graph = check_graph(with_texts(graph, options.set), name)
    setting, pictures = None, []
    if options.images:
        wanted, _, folder = options.images.rpartition("=")
        setting, pictures = picture_input(graph, wanted or "image"), pictures_in(Path(folder))
    return batch(name, graph, setting, pictures, options.repeat)


if __name__ == "__main__":
    sys.exit(main())
