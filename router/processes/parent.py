"""The parent of several router processes: opens the port, starts the children, hands frames on, starts again what dies.

Serves nothing itself. Each child gets a listening socket of its own on the same port (SO_REUSEPORT), which stays open
here while it is started again, so that connections wait instead of failing. One child is named leader: the one that has
served longest. Blocking, one thread. Called by config_commands. Not here: frames (relay), what a child does (child).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import msgspec

from router.obstacle import family_of
from router.processes.backoff import Backoff
from router.processes.frame import HELLO, PARENT, PEERS, READY, Frames, pack
from router.processes.relay import Relay

log = logging.getLogger(__name__)

READ_BYTES = 2**18
BUFFER_BYTES = 2**20
LOOK_S = 0.25
GATHER_S = 0.0005
"""Children tell at the same moments (replica): what all say is handed on together, which wakes each of them once."""
PATIENCE_S = 2.0
"""For a process that is started again sooner than that connections wait; else its socket is closed meanwhile."""
INSIST_S = 10.0
"""How long after the grace period a child may take to end before it is killed."""
NOT_STARTED = 3
"""uvicorn's own exit status of a server that could not start."""
_PR_SET_PDEATHSIG = 1
_encode = msgspec.msgpack.Encoder().encode


def listen_on(host: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets on one port, among which the kernel divides connections. They do not listen yet."""
    family = family_of(host)
    sockets: list[socket.socket] = []
    for _ in range(count):
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        port = sock.getsockname()[1]  # the one that was free, where 0 was asked for
        sockets.append(sock)
    return sockets


class Child:
    """One running process, and the parent's end of its line."""

    def __init__(self, number: int, listening: socket.socket, hello: dict[str, Any]) -> None:
        self.number = number
        self.ready_s: float | None = None
        self.started_s = time.monotonic()
        self.frames = Frames()
        self.silent = False
        self.line, theirs = socket.socketpair()
        for end in (self.line, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self.line.setblocking(False)
        fds = (theirs.fileno(), listening.fileno())
        argv = [sys.executable, "-m", "router.processes.child", *(str(each) for each in (*fds, number))]
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  our own command line
                argv, stdin=subprocess.DEVNULL, pass_fds=fds, start_new_session=True, preexec_fn=_die_with_parent
            )
        self.hello = pack(PARENT, number, HELLO, _encode(hello))

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Parent:
    """`hello` is what every child needs to begin; `grace_s` how long they may take to end when they are told to."""

    def __init__(self, listening: list[socket.socket], hello: dict[str, Any], *, grace_s: float) -> None:
        self._listening = listening
        self._address: tuple[str, int] = listening[0].getsockname()[:2]
        self._hello = hello
        self._grace_s = grace_s
        self._relay = Relay()
        self._children: dict[int, Child] = {}
        self._waiting: dict[int, float] = {}
        self._backoff = {number: Backoff() for number in range(len(listening))}
        self._selector = selectors.DefaultSelector()
        self._leader = PARENT
        self._began = False
        self._restarts = 0
        self._signals: list[int] = []
        self._stopping: int | None = None
        self._kill_s = float("inf")
        self._status = 0

    def run(self) -> tuple[int, int | None]:
        """Until all children have ended: (exit status, the signal that asked for it)."""
        awake, wake = socket.socketpair()
        for end in (awake, wake):
            end.setblocking(False)
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        handlers = {kind: signal.signal(kind, self._on_signal) for kind in kinds}
        self._selector.register(awake, selectors.EVENT_READ)
        try:
            self._start(0)
            while self._children or (self._waiting and self._stopping is None):
                self._turn(awake)
        finally:
            for child in self._children.values():
                child.process.kill()
                child.process.wait()
            signal.set_wakeup_fd(before)
            for kind, handler in handlers.items():
                signal.signal(kind, handler)
            self._selector.close()
            for sock in (awake, wake, *self._listening):
                sock.close()
        return self._status, self._stopping

    # -- one turn -------------------------------------------------------------------------------------------------

    def _turn(self, awake: socket.socket) -> None:
        found = self._selector.select(LOOK_S)
        look = not found
        if len(self._children) > 2 and found:
            time.sleep(GATHER_S)
            found = self._selector.select(0)
        for key, events in found:
            if key.data is None:
                look = True  # a signal, maybe of a child that has ended
                with contextlib.suppress(BlockingIOError):
                    awake.recv(4096)
            elif events & selectors.EVENT_READ:
                child: Child = key.data
                self._read(child)
        while self._signals:
            self._take_signal(self._signals.pop(0))
        for child in list(self._children.values()) if look else ():
            if child.process.poll() is not None:
                self._ended(child)
        now_s = time.monotonic()
        for number in [number for number, due_s in self._waiting.items() if due_s <= now_s]:
            del self._waiting[number]
            self._start(number)
        if now_s >= self._kill_s:
            for child in self._children.values():
                child.process.kill()
        for child in self._children.values():
            self._write(child)

    def _read(self, child: Child) -> bool:
        """Whether there was something."""
        try:
            data = child.line.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            if not child.silent:
                child.silent = True
                self._selector.unregister(child.line)  # it is about to end
            return False
        for _, target, kind, payload in child.frames.feed(data):
            if kind == READY:
                self._ready(child)
            else:
                self._relay.hand_on(child.number, target, kind, payload)
        return True

    def _write(self, child: Child) -> None:
        if child.silent:
            return
        box = self._relay.outboxes[child.number]
        blocked = False
        while (data := box.next()) is not None and not blocked:
            try:
                box.written(child.line.send(data))
            except BlockingIOError:
                blocked = True
            except OSError:
                break  # it has ended, which will be noticed
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if blocked else 0)
        if self._selector.get_key(child.line).events != wanted:
            self._selector.modify(child.line, wanted, child)

    # -- children -------------------------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        if self._stopping is not None:
            return
        if self._listening[number].fileno() < 0:
            try:
                [self._listening[number]] = listen_on(*self._address, 1)
            except OSError as error:
                log.error("process %d cannot listen again: %s", number, error.strerror)
                self._waiting[number] = time.monotonic() + self._backoff[number].wait_s(0.0)
                return
        child = self._children[number] = Child(number, self._listening[number], self._hello)
        self._selector.register(child.line, selectors.EVENT_READ, child)
        self._relay.join(number).put(child.hello, droppable=False)
        self._tell()

    def _ready(self, child: Child) -> None:
        child.ready_s = time.monotonic()
        if not self._began:  # the first start can be refused, for all of them; the others then follow
            self._began = True
            for number in range(1, len(self._listening)):
                self._start(number)
        self._tell()
        if len(self._serving()) == len(self._listening):
            log.info("%d processes serve", len(self._listening))

    def _ended(self, child: Child) -> None:
        while not child.silent and self._read(child):
            pass
        if not child.silent:
            self._selector.unregister(child.line)
        child.line.close()
        del self._children[child.number]
        self._relay.leave(child.number)
        code = child.process.returncode
        if self._stopping is None:
            if not self._began:
                self._status = code if code > 0 else NOT_STARTED
                self._stopping = 0
                return
            wait_s = self._backoff[child.number].wait_s(time.monotonic() - child.started_s)
            self._waiting[child.number] = time.monotonic() + wait_s
            if wait_s > PATIENCE_S:
                self._listening[child.number].close()  # new connections go to the others meanwhile
            self._restarts += 1
            how = f"signal {-code}" if code < 0 else f"status {code}"
            log.error("process %d (pid %d) ended with %s; it is started again in %g s",
                      child.number, child.process.pid, how, wait_s)  # fmt: skip
        self._tell()

    def _serving(self) -> list[Child]:
        return [child for child in self._children.values() if child.ready_s is not None]

    def _tell(self) -> None:
        """Say who is there and who leads, to all."""
        if self._leader not in self._children:
            oldest = sorted(self._serving(), key=lambda child: child.ready_s or 0.0)
            self._leader = oldest[0].number if oldest else min(self._children, default=PARENT)
        alive, ready = list(self._children), [child.number for child in self._serving()]
        payload = _encode((self._leader, alive, ready, self._restarts))
        for number, box in self._relay.outboxes.items():
            box.put(pack(PARENT, number, PEERS, payload), droppable=False)

    # -- signals --------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _take_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            leader = self._children.get(self._leader)
            if leader is not None:
                leader.send_signal(signal.SIGHUP)
            return
        if self._stopping is None:
            self._stopping = number
            self._kill_s = time.monotonic() + self._grace_s + INSIST_S
            for sock in self._listening:
                sock.close()  # each child has its own
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)


def run_processes(host: str, port: int, count: int, hello: dict[str, Any], *, grace_s: float) -> int:
    """Serve with so many processes until told to stop; the exit status. Ends by the signal that stopped it."""
    listening = listen_on(host, port, count)
    scheme = "https" if hello["tls"] else "http"
    shown = f"[{host}]" if ":" in host else host
    log.info("%d processes on %s://%s:%d", count, scheme, shown, listening[0].getsockname()[1])
    status, asked = Parent(listening, hello, grace_s=grace_s).run()
    if asked:
        if asked == signal.SIGTERM:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(asked)
    return status


def as_hello(
    config_file: os.PathLike[str] | None, overrides: dict[tuple[str, ...], Any], *, tls: bool
) -> dict[str, Any]:
    """What every child needs to read the same configuration."""
    given = [[list(path), value] for path, value in overrides.items()]
    return {"config_file": None if config_file is None else os.fspath(config_file), "overrides": given, "tls": tls}
