"""The journal: what was written counts, what was being written when the client ended does not."""

from pathlib import Path

import pytest

from flux_core.errors import Flux1Error
from workflows.jobs import Job
from workflows.journal import journal

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {"seed": 1}}}
JOBS = [Job(name, GRAPH) for name in ("a", "b")]


def write(path: Path, *events: dict) -> None:
    with journal(path) as state:
        for event in events:
            state.write(**event)


def sent(job: Job, prompt_id: str = "id") -> dict:
    return {"event": "sent", "job": job.name, "prompt_id": prompt_id, "digest": job.digest}


def done(job: Job) -> dict:
    return {"event": "done", "job": job.name, "files": [f"{job.name}.png"]}


def test_it_is_continued_where_it_ended_at_whatever_byte_that_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, sent(JOBS[0], "first"), done(JOBS[0]))
    earlier = path.read_bytes()
    write(path, sent(JOBS[1], "second"))
    whole = path.read_bytes()
    for end in range(len(earlier), len(whole) + 1):
        path.write_bytes(whole[:end])
        with journal(path) as state:
            assert state.sent == {"a": "first"} | ({"b": "second"} if end == len(whole) else {})
            assert [job.name for job in state.open_jobs(JOBS, tmp_path)] == ["b"]
            state.write(**sent(JOBS[1], "third"))
            state.write(**done(JOBS[1]))
        with journal(path) as state:
            assert state.open_jobs(JOBS, tmp_path) == []


def test_a_line_lies_in_the_file_before_anything_else_happens(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal(path) as state:
        state.write(**sent(JOBS[0], "first"))
        assert '"first"' in path.read_text()


def test_a_client_that_continues_is_the_same_to_the_server(tmp_path: Path) -> None:
    with journal(tmp_path / "journal.jsonl") as first:
        client_id = first.client_id
    with journal(tmp_path / "journal.jsonl") as second:
        assert second.client_id == client_id


def test_a_failed_job_is_open_again_and_new_to_the_server(tmp_path: Path) -> None:
    lost, failed = {"event": "lost", "job": "a"}, {"event": "failed", "job": "a", "error": "no"}
    write(tmp_path / "journal.jsonl", sent(JOBS[0]), lost, failed)
    with journal(tmp_path / "journal.jsonl") as state:
        assert "a" not in state.sent and not state.lost["a"] and JOBS[0] in state.open_jobs(JOBS, tmp_path)


def test_a_job_with_other_settings_is_not_taken_for_the_one_that_was_sent(tmp_path: Path) -> None:
    other = Job("a", {"1": {"class_type": "SaveImage", "inputs": {"seed": 2}}})
    write(tmp_path / "journal.jsonl", sent(JOBS[0]))
    with journal(tmp_path / "journal.jsonl") as state:
        assert state.open_jobs([other], tmp_path) == [other]
        assert "a" not in state.sent
    write(tmp_path / "journal.jsonl", done(JOBS[0]))
    with journal(tmp_path / "journal.jsonl") as state, pytest.raises(Flux1Error, match="a already, of other work"):
        state.open_jobs([other], tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "a_1.png"])
def test_a_file_that_is_not_ours_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with journal(tmp_path / "journal.jsonl") as state, pytest.raises(Flux1Error, match="a already"):
        state.open_jobs(JOBS, tmp_path)


def test_one_journal_serves_one_client(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with journal(path), pytest.raises(Flux1Error, match="Another client"), journal(path):
        pass


def test_a_journal_that_is_none_is_said_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"event": "client", "client_id": "x"}\n{"event" \n')
    with pytest.raises(Flux1Error, match="line 2"), journal(tmp_path / "journal.jsonl"):
        pass
