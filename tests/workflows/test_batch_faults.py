"""Batches through every fault: each job's picture is there in the end, once and whole, or its error is said."""

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from flux_core.errors import Flux1Error
from tests.workflows.batches import SEED, SMALL, lines, pixels, said, seeds, small, start, until
from tests.workflows.relay import Relay
from workflows import runner
from workflows.client import Client
from workflows.connection import Connection
from workflows.jobs import UPLOADS, Job
from workflows.journal import journal
from workflows.progress import Progress
from workflows.server import Server, free_port, serve
from workflows.settable import with_texts

T = TypeVar("T")


@pytest.fixture
def relay(running: Server) -> Iterator[Relay]:
    relay = Relay(running.address)
    yield relay
    relay.close()


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


def test_a_lost_server_that_does_not_come_back_ends_the_batch_and_the_same_command_goes_on(
    relay: Relay, running: Server, tmp_path: Path
) -> None:
    before = running.log.read_text().count("got prompt")
    command = [*SMALL, "--set", "steps=60", "--repeat", "4", "--server"]
    client = start(*command, relay.address, "--wait", "1", folder=tmp_path)
    until(lambda: bool(lines(tmp_path, "done")))
    relay.close()
    assert client.wait(timeout=100) == 3, said(tmp_path)
    assert start(*command, running.address, folder=tmp_path).wait(timeout=200) == 0, said(tmp_path)
    assert seeds(tmp_path) == list(range(SEED, SEED + 4))
    assert running.log.read_text().count("got prompt") == before + 4


def test_a_server_that_comes_back_without_the_pictures_gets_them_again(
    relay: Relay, running: Server, server: Client, tmp_path: Path
) -> None:
    """As one does that was started anew, with an empty input folder."""
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    Image.effect_noise((64, 64), 50).convert("RGB").save(pictures / "noise.png")
    command = ["image_to_image", "--images", str(pictures), "--set", "steps=60", "--repeat", "2", "--ahead", "1"]
    client = start(*command, "--server", relay.address, folder=out)
    until(lambda: bool(lines(out, "sent")))
    relay.close()
    until(lambda: not any(server.get("/queue").values()))
    shutil.rmtree(running.home / "input" / UPLOADS)
    again = Relay(running.address, relay.port)
    assert client.wait(timeout=200) == 0, said(out)
    again.close()
    assert len(list(out.glob("*.png"))) == 2


def test_no_more_jobs_than_asked_lie_in_the_queue(running: Server, tmp_path: Path) -> None:
    command = [*SMALL, "--set", "steps=1", "--repeat", "6", "--ahead", "2", "--server", running.address]
    assert start(*command, folder=tmp_path).wait(timeout=200) == 0, said(tmp_path)
    steps = {"sent": 1, "done": -1}
    assert max(accumulate(steps[line["event"]] for line in lines(tmp_path, *steps))) == 2


def test_when_the_first_job_is_refused_no_other_one_is_sent(running: Server, tmp_path: Path) -> None:
    client = start(*SMALL, "--set", "steps=0", "--repeat", "3", "--server", running.address, folder=tmp_path)
    assert client.wait(timeout=100) == 2
    assert "refused the first job" in said(tmp_path) and "steps" in said(tmp_path)
    assert len(lines(tmp_path, "sent")) == 1


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


Beside = Callable[[runner.Runner, Connection], Awaitable[None]]


def failures(jobs: Sequence[Job], running: Server, folder: Path, beside: Beside | None = None) -> dict[str, str]:
    """Of a batch in this process, by job name; `beside` goes on at the same time."""

    async def work() -> dict[str, str]:
        with journal(folder / "journal.jsonl") as state, Progress(len(jobs), hidden=True) as progress:
            async with Connection(running.address) as connection:
                batch = runner.Runner(connection, jobs, state, folder, progress)
                other = asyncio.ensure_future(beside(batch, connection)) if beside else None
                await batch.run()
                if other:
                    other.cancel()
                return batch.failed

    return in_a_thread(work())


def test_a_job_over_which_servers_are_lost_three_times_is_given_up_until_the_next_run(
    running: Server, server: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a client, a server that has forgotten jobs was restarted; here they are taken out of the queue.

    The first of them was at work: the others are not held against the server's end until it is their turn.
    """
    monkeypatch.setattr(runner, "ASK", 0.3)
    blocker = server.queue(small(steps=4000, seed=9000)[0].graph)  # keeps ours waiting
    until(lambda: blocker in [entry[1] for entry in server.get("/queue")["queue_running"]])

    async def forget(batch: runner.Runner, connection: Connection) -> None:
        while True:
            await connection.withdraw(list(batch.here))
            await asyncio.sleep(0.1)

    jobs = small(seed=9001, repeat=2)
    failed = failures(jobs, running, tmp_path, forget)
    server.post("/interrupt", {"prompt_id": blocker})
    assert [line["job"] for line in lines(tmp_path, "lost")] == [job.name for job in jobs for _ in range(3)]
    assert all("the server ended 3 times" in failed[job.name] for job in jobs)
    assert not failures(jobs, running, tmp_path)
    assert seeds(tmp_path) == [9001, 9002]


def test_a_job_that_is_refused_later_or_whose_picture_is_gone_fails_alone(running: Server, tmp_path: Path) -> None:
    first, refused, without, last = small(repeat=4, seed=9010)
    refused = Job(refused.name, with_texts(refused.graph, ["steps=0"]))
    without = Job(without.name, without.graph, {f"{UPLOADS}/gone.png": tmp_path / "gone.png"})
    failed = failures([first, refused, without, last], running, tmp_path)
    assert failed.keys() == {refused.name, without.name}
    assert "steps" in failed[refused.name] and str(tmp_path / "gone.png") in failed[without.name]
    assert seeds(tmp_path) == [9010, 9013]


def test_an_interrupted_job_has_failed_and_is_not_sent_again_by_itself(running: Server, tmp_path: Path) -> None:
    async def interrupt(batch: runner.Runner, connection: Connection) -> None:
        while True:
            for prompt_id in list(batch.here):
                await connection.post("/interrupt", {"prompt_id": prompt_id})
            await asyncio.sleep(0.1)

    (job,) = small(steps=4000, seed=9020)
    assert failures([job], running, tmp_path, interrupt) == {job.name: "it was interrupted"}
    assert len(lines(tmp_path, "sent")) == 1


def test_a_result_that_could_not_be_written_is_fetched_by_the_next_run(running: Server, tmp_path: Path) -> None:
    (job,) = small(seed=9030)
    taken = tmp_path / f"{job.name}.png"

    async def take(batch: runner.Runner, connection: Connection) -> None:
        taken.mkdir()

    with pytest.raises(Flux1Error, match=taken.name):
        failures([job], running, tmp_path, take)
    taken.rmdir()
    assert not failures([job], running, tmp_path)
    assert seeds(tmp_path) == [9030] and len(lines(tmp_path, "sent")) == 1


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
