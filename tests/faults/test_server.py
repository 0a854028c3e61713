"""A server that is interrupted, killed, out of memory or of disk: the next picture is the one it should be."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.faults.running import (
    DEV,
    FP8,
    FRESH,
    OURS,
    SLOW,
    Place,
    assert_same,
    faulty_model,
    graph_of,
    interrupted,
    latent,
    lora,
    picture_of,
    refused,
    sampled,
)
from tests.faults.test_lora import STYLE, loras  # noqa: F401
from workflows.client import Client
from workflows.graph import Graph
from workflows.server import serve

pytestmark = pytest.mark.usefixtures("alive", "loras")

ARMS = {
    "bf16": (DEV,),
    "bf16 and LoRA": (DEV, lora(STYLE)),
    "fp8": (FP8,),
    "fp8 and LoRA": (FP8, lora(STYLE)),
}
"""A model and what is added to it. Both kinds compute in bfloat16."""
BF16 = {"compute": "bf16"}


def cut_short(place: Place, *model) -> None:
    graph = graph_of(lambda add: sampled(add, *model, SLOW, steps=40, **BF16))
    assert interrupted(place, graph)[-1]["type"] == "execution_interrupted"


def out_of_memory(place: Place, *model) -> None:
    graph = graph_of(lambda add: sampled(add, *model, faulty_model(2, "out of memory"), **BF16))
    error = refused(place, graph, "injected")
    assert error.answer["exception_type"] == "torch.OutOfMemoryError"


def not_a_number(place: Place, *model) -> None:
    graph = graph_of(lambda add: sampled(add, *model, faulty_model(2, "nan"), **BF16))
    refused(place, graph, "nan", "step 2", *OURS)


def unloaded(place: Place, *model) -> None:
    latent(place, *model, **BF16)
    assert place.client.post("/free", {"unload_models": True})[0] == 200


FAULTS = {
    "Q01 interrupted": cut_short,
    "Q14 out of memory": out_of_memory,
    "S08 NaN": not_a_number,
    "Q19 unloaded": unloaded,
}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_the_next_picture_is_the_same_bit_for_bit(place: Place, reference: Place, fault, arm):
    """With the model it befell; `alive` sees to the other kind."""
    FAULTS[fault](place, *ARMS[arm])
    assert_same(place, reference, *ARMS[arm], **BF16)


def test_Q23_unloaded_between_fp8_with_and_without_a_lora(place: Place, reference: Place):
    for arm in ("fp8", "fp8 and LoRA", "fp8", "fp8 and LoRA"):
        assert_same(place, reference, *ARMS[arm], **BF16)
        place.client.post("/free", {"unload_models": True})


def test_Q01_an_interrupt_stops_at_once(place: Place):
    """In less than 2 s of the server's own time, whatever else the machine does."""
    server = psutil.Process(place.running.process.pid)
    marks: list[float] = []

    def watch() -> float:
        return sum(server.cpu_times()[:2])

    graph = graph_of(lambda add: sampled(add, DEV, SLOW, steps=40))
    heard = interrupted(place, graph, lambda: marks.append(watch()))
    assert heard[-1]["type"] == "execution_interrupted" and watch() - marks[0] < 2


def test_Q02_an_interrupt_of_nothing_interrupts_nothing(place: Place, reference: Place):
    assert place.client.post("/interrupt")[0] == 200
    assert_same(place, reference)


def finished(place: Place, ids: list[str]) -> list[dict]:
    """Their histories, once all have ended."""
    deadline = time.monotonic() + 300
    while any(id not in (history := place.client.get("/history")) for id in ids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [history[id] for id in ids]


def named(name: str, seed: int) -> Graph:
    return picture_of(lambda add: sampled(add, steps=1, seed=seed), prefix=name)


def files_of(history: dict) -> list[str]:
    return [image["filename"] for output in history["outputs"].values() for image in output.get("images", ())]


def test_Q07_fifty_prompts_are_fifty_pictures_in_order(place: Place):
    ids = [place.client.queue(named("fifty", next(FRESH))) for _ in range(50)]
    histories = finished(place, ids)
    assert all(history["status"]["status_str"] == "success" for history in histories)
    assert [files_of(history) for history in histories] == [[f"fifty_{number:05}_.png"] for number in range(1, 51)]
    files = [place.running.output / f"fifty_{number:05}_.png" for number in range(1, 51)]
    assert len({Image.open(file).tobytes() for file in files}) == 50


def test_Q08_ten_times_the_same_prompt_are_ten_answers(place: Place):
    graph = named("ten", next(FRESH))
    histories = finished(place, [place.client.queue(graph) for _ in range(10)])
    assert [files_of(history) for history in histories] == [["ten_00001_.png"]] * 10


def partial(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.is_file() and not file.is_symlink()]


def test_Q12_a_full_disk_is_said_with_the_name_and_leaves_no_part_of_a_file(place: Place):
    """A picture's name that leads to the device that is always full; ComfyUI counts no such name as taken."""
    folder = place.running.output / "full"
    folder.mkdir()
    name = folder / "x0_00001_.png"
    name.symlink_to("/dev/full")
    graph = named("full/x%batch_num%", next(FRESH))
    error = refused(place, graph, "No space")
    assert error.node_type == "SaveImage" and error.answer["current_inputs"]["filename_prefix"] == ["full/x%batch_num%"]
    assert not partial(folder)
    name.unlink(missing_ok=True)
    assert len(place.client.run(graph).images) == 1 and [file.name for file in partial(folder)] == [name.name]


def test_Q13_an_output_that_can_t_be_written_is_named(place: Place):
    """A file where the folder should be: nobody can write there, root included."""
    folder = place.running.output / "locked"
    folder.touch()
    graph = named("locked/x", next(FRESH))
    assert refused(place, graph, str(folder)).node_type == "SaveImage"
    folder.unlink()
    assert len(place.client.run(graph).images) == 1 and len(partial(folder)) == 1


def test_Q21_an_error_is_told_in_its_own_first_line(place: Place):
    error = refused(place, graph_of(lambda add: sampled(add, cfg=3.0)), *OURS)
    first = error.answer["exception_message"].strip().splitlines()[0]
    assert first.startswith("cfg needs a negative prompt.") and "Fix:" in first
    assert not re.search(r"(^|\s)/\w", first)
    assert error.answer["traceback"]


@pytest.fixture(scope="module")
def start(models: Path, checkout: Path) -> Iterator[Callable[[], Place]]:
    """Starts a server, and another one when called again."""
    with ExitStack() as stack:

        def another() -> Place:
            running = stack.enter_context(serve(models, comfyui=checkout, options=("--cpu", "--fp32-unet")))
            return Place(running, Client(running.address))

        yield another


def busy(place: Place) -> None:
    """At work on a picture that would take for ever, three more behind it."""
    for _ in range(4):
        place.client.queue(graph_of(lambda add: sampled(add, steps=5000)))
    while not place.client.get("/queue")["queue_running"]:
        time.sleep(0.1)
    time.sleep(1)


def test_Q16_killed_at_work_and_started_again_it_paints_the_same_and_ends_when_asked(start, reference: Place):
    first = start()
    busy(first)
    first.running.process.send_signal(signal.SIGKILL)
    first.running.process.wait(timeout=60)
    second = start()
    for arm in ARMS.values():
        assert_same(second, reference, *arm, **BF16)
    busy(second)
    second.running.process.send_signal(signal.SIGTERM)
    second.running.process.wait(timeout=10)
