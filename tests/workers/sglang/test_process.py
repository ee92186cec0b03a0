"""One owned server process: forgiven after a while, ended with its children, restarted ever more slowly."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ports import free_port
from workers.sglang.patience import Patience
from workers.sglang.process import ServerFailed, ServerProcess, State, status_text

SERVER = """\
import http.server, pathlib, subprocess, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
pathlib.Path("child").write_text(str(child.pid))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""
QUICK = Patience(ready_within_s=60, probe_every_s=0.02, restart_after_s=0.01, stop_within_s=10, restarts=1)


@asynccontextmanager
async def server(folder: Path, patience: Patience, program: str = SERVER) -> AsyncIterator[ServerProcess]:
    port = free_port()
    async with httpx.AsyncClient(trust_env=False) as client:
        made = ServerProcess(
            name="s",
            argv=[sys.executable, "-c", f"import os\nos.chdir({str(folder)!r})\n{program}", str(port)],
            environment=os.environ,
            url=f"http://127.0.0.1:{port}",
            log=folder / "log",
            patience=patience,
            client=client,
            on_state=lambda each, remark: None,
        )
        try:
            yield made
        finally:
            await made.stop()


async def until(state: State, made: ServerProcess) -> None:
    async with asyncio.timeout(60):
        while made.state is not state:
            await asyncio.sleep(0.01)


async def start_and_run(made: ServerProcess) -> None:
    """Fails in `start`, or in `run` when the first probe saw another program while this one still started."""
    await made.start()
    await made.run()


def kill(made: ServerProcess) -> None:
    process = made._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


async def test_a_server_that_was_ready_long_enough_is_forgiven_its_crashes(tmp_path: Path) -> None:
    """Three crashes with one restart allowed in a row."""
    patience = Patience(ready_within_s=60, probe_every_s=0.02, restart_after_s=0.01, forgive_after_s=0, restarts=1)
    async with server(tmp_path, patience) as made:
        await made.start()
        async with asyncio.TaskGroup() as group:
            kept = group.create_task(made.run())
            for _ in range(3):
                kill(made)
                await until(State.CRASHED, made)
                await until(State.READY, made)
            kept.cancel()


async def test_without_that_one_crash_too_many_is_the_last(tmp_path: Path) -> None:
    async with server(tmp_path, QUICK) as made:
        await made.start()
        kept = asyncio.ensure_future(made.run())
        kill(made)
        await until(State.CRASHED, made)
        await until(State.READY, made)
        kill(made)

        with pytest.raises(ServerFailed, match="s ended with signal SIGKILL"):
            await kept
        assert made.state is State.FAILED


async def test_a_child_that_will_not_end_ends_with_its_server(tmp_path: Path) -> None:
    async with server(tmp_path, QUICK) as made:
        await made.start()
        child = int((tmp_path / "child").read_text())
        await made.stop()

        async with asyncio.timeout(30):  # it is init's to reap
            while Path(f"/proc/{child}/stat").exists():
                if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    break
                await asyncio.sleep(0.01)
        assert made.state is State.STOPPED


async def test_another_program_on_its_port_does_not_make_a_dead_server_ready(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with server(tmp_path, QUICK, "import sys; sys.exit('Address already in use')") as made:
        port = int(made.url.rpartition(":")[2])
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            with pytest.raises(ServerFailed, match="choose another with --port"):
                await start_and_run(made)


def test_restarts_wait_twice_as_long_each_time_up_to_a_limit() -> None:
    pauses = [Patience(restart_after_s=1, restart_at_most_every_s=10).pause_s(failures) for failures in range(6)]

    assert pauses == [1, 2, 4, 8, 10, 10]


def test_a_status_is_said_as_people_say_it() -> None:
    assert (status_text(3), status_text(-9)) == ("status 3", "signal SIGKILL")
