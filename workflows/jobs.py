"""A batch as a list of jobs: one workflow for each picture and seed, each with a name that its results get."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from flux_core.errors import Flux1Error

from .graph import Graph
from .settable import Setting, find, settings, with_seeds, with_values

UPLOADS = "flux1-batch"
"""The folder below the server's input folder."""
LOADERS = ("LoadImage", "LoadImageMask")


@dataclass(frozen=True)
class Job:
    """One workflow to run; `pictures` are the local files that it needs, by the names that its graph gives them."""

    name: str
    graph: Graph
    pictures: Mapping[str, Path] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same for the same work: titles don't count, a picture does by its content."""
        work = {key: (node["class_type"], node["inputs"]) for key, node in self.graph.items()}
        return hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()


def batch(name: str, graph: Graph, setting: Setting | None, pictures: Sequence[Path], repeat: int) -> list[Job]:
    """The jobs of one workflow: every picture in `setting`, each `repeat` times with successive seeds."""
    endings = Counter(picture.stem.casefold() for picture in pictures)
    jobs = []
    for picture in pictures or [None]:
        shown, job_name, local = graph, name, {}
        if picture:
            local = {name_on_server(picture): picture}
            shown = with_values(graph, {(setting.node, setting.input): next(iter(local))})
            twin = endings[picture.stem.casefold()] > 1  # the same name with another ending
            job_name = f"{name}_{picture.name.replace('.', '_') if twin else picture.stem}"
        for more in range(repeat):
            number = f"_{more + 1:04}" if repeat > 1 else ""
            jobs.append(Job(job_name + number, with_seeds(shown, more) if more else shown, local))
    return [with_local_pictures(job) for job in jobs]


def with_local_pictures(job: Job) -> Job:
    """Where an input names a picture on this machine, the file itself goes with the job."""
    shown = [each for each in settings(job.graph) if takes_picture(job.graph, each)]
    local = {each: Path(each.value) for each in shown if Path(each.value).is_file()}
    names = {each: name_on_server(path) for each, path in local.items()}
    graph = with_values(job.graph, {(each.node, each.input): name for each, name in names.items()})
    return Job(job.name, graph, {**job.pictures, **{names[each]: path for each, path in local.items()}})


def takes_picture(graph: Graph, setting: Setting) -> bool:
    return setting.input == "image" and graph[setting.node]["class_type"] in LOADERS


def picture_input(graph: Graph, name: str) -> Setting:
    """The input of this name that loads a picture; raises Flux1Error when there isn't exactly one."""
    setting = find(graph, name)
    if not takes_picture(graph, setting):
        raise Flux1Error(
            f"{name} takes no picture", expected=f"an input of {' or '.join(LOADERS)}",
            found=graph[setting.node]["class_type"], fix="name another input: --images INPUT=FOLDER",
        )  # fmt: skip
    return setting


def name_on_server(picture: Path) -> str:
    """By its content, so that no other picture is ever overwritten and none is there twice."""
    return f"{UPLOADS}/{hashlib.sha256(picture.read_bytes()).hexdigest()[:20]}{picture.suffix.lower()}"


def pictures_in(folder: Path) -> list[Path]:
    """The folder's pictures by name; raises Flux1Error when there are none."""
    Image.init()
    endings = Image.registered_extensions()
    found = sorted(
        (file for file in folder.glob("*") if file.is_file() and file.suffix.lower() in endings),
        key=lambda file: file.name,
    )
    if not found:
        raise Flux1Error(
            "No pictures to work on", file=str(folder), expected="a folder with picture files in it",
            found="none" if folder.is_dir() else "no such folder", fix="check the folder's name",
        )  # fmt: skip
    return found
