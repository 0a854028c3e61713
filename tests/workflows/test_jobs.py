"""Jobs: every picture with every seed once, each under a name of its own; the same work is known again."""

from pathlib import Path

import pytest
from PIL import Image

from flux_core.errors import Flux1Error
from workflows.graph import find_nodes
from workflows.jobs import Job, batch, picture_input, pictures_in
from workflows.results import names, result_files, write_whole
from workflows.settable import settings, with_texts
from workflows.source import find_source


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, name in enumerate(("b.png", "a.png", "a.jpg", "ü ' \".webp")):
        Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def image_to_image(folder: Path, repeat: int = 1, *texts: str) -> list[Job]:
    graph = with_texts(find_source("image_to_image").graph, texts)
    return batch("paint", graph, picture_input(graph, "image"), pictures_in(folder), repeat)


def test_every_picture_comes_with_every_seed_once(pictures: Path) -> None:
    jobs = image_to_image(pictures, 3, "seed=18446744073709551614")
    assert len(jobs) == len({job.name for job in jobs}) == len({job.digest for job in jobs}) == 4 * 3
    shown = [find_nodes(job.graph, "LoadImage")[0]["inputs"]["image"] for job in jobs]
    seeds = [find_nodes(job.graph, "Flux1Sampler")[0]["inputs"]["seed"] for job in jobs]
    assert seeds == [2**64 - 2, 2**64 - 1, 0] * 4
    assert all(list(job.pictures) == [name] for job, name in zip(jobs, shown, strict=True))
    assert [job.pictures[name].name for job, name in zip(jobs, shown, strict=True)][::3] == sorted(
        file.name for file in pictures.iterdir() if file.suffix != ".txt"
    )


def test_pictures_that_differ_in_their_ending_alone_get_names_that_differ(pictures: Path) -> None:
    assert [job.name for job in image_to_image(pictures)] == ["paint_a_jpg", "paint_a_png", "paint_b", "paint_ü ' \""]


def test_the_same_work_is_known_by_the_picture_s_content_not_its_place(pictures: Path, tmp_path: Path) -> None:
    before = image_to_image(pictures)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in pictures_in(pictures):
        file.rename(elsewhere / file.name)
    assert [job.digest for job in image_to_image(elsewhere)] == [job.digest for job in before]
    Image.new("RGB", (8, 8), "white").save(elsewhere / "b.png")
    changed = [new.digest != old.digest for new, old in zip(image_to_image(elsewhere), before, strict=True)]
    assert changed == [False, False, True, False]


def test_a_picture_that_is_set_by_hand_goes_with_the_job(pictures: Path) -> None:
    graph = with_texts(find_source("kontext_two_references").graph, [f"First picture.image={pictures / 'a.png'}"])
    (job,) = batch("edit", graph, None, [], 1)
    assert list(job.pictures.values()) == [pictures / "a.png"]
    first, second = find_nodes(job.graph, "LoadImage")
    assert list(job.pictures) == [first["inputs"]["image"]]
    assert second["inputs"]["image"] == "second_landscape.png"


def test_the_same_work_is_known_whatever_its_nodes_are_called() -> None:
    graph = find_source("text_to_image_dev").graph
    (before,) = batch("a", graph, None, [], 1)
    (after,) = batch("a", {key: node | {"_meta": {"title": key}} for key, node in graph.items()}, None, [], 1)
    assert before.graph != after.graph and before.digest == after.digest


def test_every_seed_of_a_workflow_is_another_one_when_it_is_repeated() -> None:
    graph = find_source("kontext_edit").graph
    graph = graph | {"99": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}}
    first, second = batch("edit", graph, None, [], 2)
    seeds = [
        (setting.value, other.value)
        for setting, other in zip(settings(first.graph), settings(second.graph), strict=True)
        if setting.input in ("seed", "noise_seed")
    ]
    assert len(seeds) == 3 and all(other == value + 1 for value, other in seeds)


def test_a_workflow_without_a_seed_is_not_repeated() -> None:
    with pytest.raises(Flux1Error, match="can't be repeated"):
        batch("x", {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}, None, [], 2)


def test_a_folder_without_pictures_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Flux1Error, match="No pictures"):
        pictures_in(tmp_path)


def test_what_is_saved_comes_before_what_is_only_shown() -> None:
    shown = {"filename": "edges.png", "subfolder": "", "type": "temp"}
    saved = [{"filename": f"{n}.webp", "subfolder": "", "type": "output"} for n in (1, 2)]
    outputs = {"1": {"images": [shown], "animated": [False]}, "2": {"images": saved}, "3": {"text": ["done"]}}
    assert result_files(outputs) == saved
    assert names("job", saved) == ["job_1.webp", "job_2.webp"]
    assert result_files({"1": {"images": [shown]}}) == [shown]
    assert names("job", [shown]) == ["job.png"]


def test_a_result_that_can_t_be_written_leaves_nothing_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(Flux1Error, match=r"taken\.png"):
        write_whole(tmp_path / "taken.png", b"picture")
    assert [file.name for file in tmp_path.iterdir()] == ["taken.png"]


def test_a_file_is_never_a_part_of_one_when_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / ".a.png.part").symlink_to("/dev/full")
    with pytest.raises(Flux1Error, match=r"(?s)a\.png.*No space"):
        write_whole(tmp_path / "a.png", b"picture")
    assert not list(tmp_path.iterdir())
