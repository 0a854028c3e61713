"""Batches through every fault: each job's picture is there in the end, once and whole, or its error is said."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from tests.workflows.batches import SEED, SMALL, lines, pixels, said, seeds, start, until
from tests.workflows.relay import Relay
from workflows import runner
from workflows.client import Client
from workflows.connection import Connection
from workflows.jobs import Job, batch
from workflows.journal import journal
from workflows.progress import Progress
from workflows.server import Server, free_port, serve
from workflows.settable import with_texts
from workflows.source import find_source

T = TypeVar("T")


@pytest.fixture
def relay(running: Server) -> Iterator[Relay]:
    relay = Relay(running.address)
    yield relay
    relay.close()


def small(steps: int = 1, repeat: int = 1, seed: int = SEED) -> list[Job]:
    graph = with_texts(find_source(SMALL[0]).graph, ["width=64", "height=64", f"steps={steps}", f"seed={seed}"])
    return batch(SMALL[0], graph, None, [], repeat)


def test_fifty_jobs_survive_the_server_s_and_the_client_s_sudden_end(
    models: Path, checkout: Path, server: Client, tmp_path: Path
) -> None:
    """kill -9 of both: fifty pictures in order, none twice, none partial, each as an undisturbed server paints it."""
    out, count, port = tmp_path / "out", 50, free_port()
    batch_of_fifty = [
        *SMALL, "--set", "steps=4", "--repeat", str(count), "--server", f"http://127.0.0.1:{port}", "--wait", "300",
    ]  # fmt: skip
    options = {"comfyui": checkout, "port": port, "options": ("--cpu", "--fp32-unet"), "output": tmp_path / "saved"}

    def done() -> int:
        return len(lines(out, "done"))

    with ExitStack() as clients:
        with serve(models, log=tmp_path / "first.log", **options) as first:
            client = clients.enter_context(start(*batch_of_fifty, folder=out))
            clients.callback(client.kill)
            until(lambda: done() >= 8)
            first.process.kill()
            first.process.wait()
            until(lambda: "Lost the server" in said(out))
        at_first = done()
        assert at_first < count
        with serve(models, log=tmp_path / "second.log", **options) as second:
            until(lambda: done() >= at_first + 8)
            client.kill()
            client.wait()
            assert done() < count
            again = clients.enter_context(start(*batch_of_fifty, folder=out))
            clients.callback(again.kill)
            assert again.wait(timeout=300) == 0, said(out)
            taken = second.log.read_text().count("got prompt")
    assert taken == count - at_first  # the second client sent nothing again
    assert [line["job"] for line in lines(out, "done")] == [f"{SMALL[0]}_{n:04}" for n in range(1, count + 1)]
    assert seeds(out) == list(range(SEED, SEED + count))
    assert not list(out.glob("*.part")) + list(out.glob(".*.part"))
    for job in [small(4, count)[n] for n in (0, at_first, count - 1)]:
        (undisturbed,) = server.run(job.graph).images
        assert (pixels(Image.open(out / f"{job.name}.png")) == pixels(undisturbed)).all()


def test_two_clients_see_their_own_jobs_only(running: Server, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    first = [[*SMALL, "--set", "steps=1", "--set", f"seed={seed}", "--repeat", "5"] for seed in (100, 200)]
    clients = [start(*each, "--server", running.address, folder=out) for each, out in zip(first, folders, strict=True)]
    assert [client.wait(timeout=200) for client in clients] == [0, 0]
    assert [seeds(out) for out in folders] == [list(range(100, 105)), list(range(200, 205))]
    ids = [{line["prompt_id"] for line in lines(out, "sent")} for out in folders]
    assert [len(each) for each in ids] == [5, 5] and not ids[0] & ids[1]


def test_a_cut_connection_costs_nothing(relay: Relay, running: Server, tmp_path: Path) -> None:
    before = running.log.read_text().count("got prompt")
    client = start(*SMALL, "--set", "steps=30", "--repeat", "5", "--server", relay.address, folder=tmp_path)
    for jobs in (1, 2, 3):
        until(lambda jobs=jobs: len(lines(tmp_path, "done")) >= jobs)
        relay.cut()
    assert client.wait(timeout=200) == 0, said(tmp_path)
    assert "Lost the server" in said(tmp_path)
    assert seeds(tmp_path) == list(range(SEED, SEED + 5))
    assert running.log.read_text().count("got prompt") == before + 5


def test_a_lost_answer_makes_no_job_run_twice(relay: Relay, running: Server, tmp_path: Path) -> None:
    """The server has queued the job, the client can't know: it asks before it sends anything again."""
    before = running.log.read_text().count("got prompt")
    relay.swallow = b"POST /prompt"
    client = start(*SMALL, "--set", "steps=2", "--repeat", "2", "--server", relay.address, folder=tmp_path)
    assert client.wait(timeout=200) == 0, said(tmp_path)
    assert relay.swallow is None
    assert seeds(tmp_path) == [SEED, SEED + 1]
    assert running.log.read_text().count("got prompt") == before + 2


def test_a_server_that_comes_later_is_waited_for(running: Server, tmp_path: Path) -> None:
    port = free_port()
    client = start(*SMALL, "--set", "steps=1", "--server", f"127.0.0.1:{port}", "--wait", "100", folder=tmp_path)
    until(lambda: "Trying for up to 100 s" in said(tmp_path))
    relay = Relay(running.address, port)
    assert client.wait(timeout=200) == 0, said(tmp_path)
    relay.close()
    assert seeds(tmp_path) == [SEED]


def test_a_server_that_does_not_come_is_given_up_with_advice(tmp_path: Path) -> None:
    client = start(*SMALL, "--server", f"127.0.0.1:{free_port()}", "--wait", "1", folder=tmp_path)
    assert client.wait(timeout=100) == 3
    assert "Found: none within 1 s" in said(tmp_path) and "Fix: start ComfyUI" in said(tmp_path)


def test_ctrl_c_takes_the_waiting_jobs_back_and_the_same_command_goes_on(
    running: Server, server: Client, tmp_path: Path
) -> None:
    command = [*SMALL, "--set", "steps=60", "--repeat", "4", "--server", running.address]
    client = start(*command, folder=tmp_path)
    until(lambda: len(server.get("/queue")["queue_pending"]) == 3)
    client.send_signal(signal.SIGINT)
    assert client.wait(timeout=60) == 130
    ours = {line["prompt_id"] for line in lines(tmp_path, "sent")}
    assert not ours & {entry[1] for entry in server.get("/queue")["queue_pending"]}
    assert start(*command, folder=tmp_path).wait(timeout=200) == 0, said(tmp_path)
    assert seeds(tmp_path) == list(range(SEED, SEED + 4))


def in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    """Its result; the browser's tests leave an event loop in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def test_a_job_over_which_servers_are_lost_three_times_is_given_up_until_the_next_run(
    running: Server, server: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a client, a server that has forgotten a job was restarted; here the job is taken out of the queue."""
    monkeypatch.setattr(runner, "ASK", 0.3)
    blocker = server.queue(small(steps=4000, seed=9000)[0].graph)  # keeps ours waiting
    until(lambda: blocker in [entry[1] for entry in server.get("/queue")["queue_running"]])

    async def forget(batch: runner.Runner, connection: Connection) -> None:
        while True:
            await connection.withdraw(list(batch.here))
            await asyncio.sleep(0.1)

    async def run(forgotten: bool) -> dict[str, str]:
        with journal(tmp_path / "journal.jsonl") as state, Progress(1, hidden=True) as progress:
            async with Connection(running.address) as connection:
                batch = runner.Runner(connection, small(seed=9001), state, tmp_path, progress)
                forgetting = asyncio.create_task(forget(batch, connection)) if forgotten else None
                await batch.run()
                if forgetting:
                    forgetting.cancel()
                return batch.failed

    failed = in_a_thread(run(forgotten=True))
    server.post("/interrupt", {"prompt_id": blocker})
    assert "the server ended 3 times" in failed[SMALL[0]]
    assert len(lines(tmp_path, "sent")) == len(lines(tmp_path, "lost")) == 3
    assert not in_a_thread(run(forgotten=False))
    assert seeds(tmp_path) == [9001]


def test_a_failed_job_is_said_with_its_node_and_tried_again_by_the_next_run(running: Server, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.effect_noise((64, 64), 50).convert("RGB").save(pictures / "good.png")
    (pictures / "bad.png").write_text("no picture")
    command = ["image_to_image", "--images", str(pictures), "--set", "steps=2", "--server", running.address]
    out = tmp_path / "out"
    assert start(*command, folder=out).wait(timeout=200) == 1
    assert "image_to_image_bad: FAILED: Node 5 'Picture" in said(out) and "cannot identify" in said(out)
    Image.effect_noise((64, 64), 50).convert("RGB").save(pictures / "bad.png")
    assert start(*command, folder=out).wait(timeout=200) == 0
    assert [file.name for file in sorted(out.glob("*.png"))] == ["image_to_image_bad.png", "image_to_image_good.png"]
    assert [line["job"] for line in lines(out, "sent")] == ["image_to_image_" + name for name in ("bad", "good", "bad")]


def test_results_of_other_work_are_not_overwritten(running: Server, tmp_path: Path) -> None:
    command = [*SMALL, "--server", running.address]
    assert start(*command, "--set", "steps=1", folder=tmp_path).wait(timeout=200) == 0
    (file,) = tmp_path.glob("*.png")
    before = file.read_bytes()
    assert start(*command, "--set", "steps=2", folder=tmp_path).wait(timeout=200) == 2
    assert file.read_bytes() == before and "of other work" in said(tmp_path)
