"""Whatever bytes come in: no crash, no hang, no leaked lease, and no byte of one client's answer in another's.

Valid requests are broken from a seed: bytes flipped, dropped, doubled, moved, cut in pieces, pipelined. The default
run sends 2,000; TRIEWAY_FUZZ_REQUESTS=100000 (with TRIEWAY_FUZZ_SEED) sends more.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
from random import Random

import pytest

from router.inbound import RouterProtocol
from router_fakes import DONE, STREAM_HEAD, Call, Running, answer, chunk, config, event, running, upstream

REQUESTS = int(os.environ.get("TRIEWAY_FUZZ_REQUESTS", "2000"))
SEED = int(os.environ.get("TRIEWAY_FUZZ_SEED", "7"))
AT_ONCE = 64
QUIET_S, QUIET_TURNS = 0.2, 25
"""How long a client waits for more before it hangs up on what may be waiting for the rest of its request. Router and
worker run in the same loop, so that turns of it are the time that counts on a machine that is busy."""
TOKEN = re.compile(rb"T[0-9a-f]{16}")
INTERESTING = [b"\r\n", b"\n", b"\r", b"\x00", b":", b" ", b"0\r\n\r\n", b"content-length: 3\r\n", b"\xff", b"\r\n\r\n",
               b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"expect: 100-continue\r\n", b"HTTP/1.1",
               b"upgrade: h2c\r\nconnection: upgrade\r\n", b"99999999999999999999", b"-1", b";a=b", b"\t"]  # fmt: skip


def valid(rng: Random, token: bytes) -> bytes:
    """A request that a worker would answer, with this token in its prompt."""
    chat = "/v1/chat/completions"
    path = rng.choice([chat, chat, "/generate", "/health", "/v1/models", "/nowhere"])
    content = (token + b" ").decode() * rng.choice([1, 1, 3, 40])
    body = json.dumps(
        {"text": content, "messages": [{"role": "user", "content": content}], "stream": rng.random() < 0.3}
    ).encode()
    method = "POST" if path.startswith(("/v1/chat", "/gen")) or rng.random() < 0.2 else "GET"
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nx-token: {token.decode()}\r\n".encode()
    if rng.random() < 0.3:
        cut = rng.randrange(1, len(body))
        return head + b"transfer-encoding: chunked\r\n\r\n" + chunk(body[:cut]) + chunk(body[cut:]) + b"0\r\n\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def broken(rng: Random, data: bytes) -> bytes:
    """The same with up to four things done to it; sometimes none."""
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 2, 8, 50]))
        data = rng.choice(
            [
                data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
                data[:at] + data[end:],
                data[:end] + data[at:],
                data[:at] + rng.choice(INTERESTING) + data[at:],
                data[:at],
                data.replace(b"\r\n", rng.choice([b"\n", b"\r", b"\r\n "]), rng.randrange(1, 3)),
            ]
        )
    return data


async def echo(call: Call, writer: asyncio.StreamWriter) -> None:
    """Answers with the tokens it was sent."""
    tokens = sorted({found.decode() for found in TOKEN.findall(call.body)})
    if b'"stream": true' in call.body:
        writer.write(STREAM_HEAD)
        for token in tokens:
            writer.write(chunk(event(token)))
            await asyncio.sleep(0)
        writer.write(chunk(DONE) + b"0\r\n\r\n")
    else:
        await answer({"tokens": tokens})(call, writer)


async def client(port: int, rng: Random, sent: bytes) -> bytes:
    """What comes back, until the router hangs up or is quiet for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        for piece in pieces(rng, sent):
            writer.write(piece)
            await writer.drain()
        while data := await read_unless_quiet(reader):
            received += data
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return received


async def read_unless_quiet(reader: asyncio.StreamReader) -> bytes:
    """What comes next; nothing after the end, or when nothing comes."""
    reading = asyncio.ensure_future(reader.read(65_536))
    try:
        for _ in range(QUIET_TURNS):
            if reading.done():
                break
            await asyncio.wait({reading}, timeout=QUIET_S / QUIET_TURNS)
        return await reading if reading.done() else b""
    finally:
        reading.cancel()


def pieces(rng: Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 5])))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def check_answers(received: bytes) -> None:
    """It is a sequence of whole HTTP/1.1 responses; the last may be cut off by the client's leaving."""
    while received:
        head, found, rest = received.partition(b"\r\n\r\n")
        assert re.match(rb"HTTP/1\.1 [1-5]\d\d [^\r\n]*(\r\n[a-z0-9-]+: [^\r\n]*)*\Z", head), received[:300]
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if not found or head.startswith(b"HTTP/1.1 1"):
            received = rest
        elif length is not None:
            received = rest[int(length[1]) :]
        else:
            assert b"transfer-encoding: chunked" in head, received[:300]
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                assert re.fullmatch(rb"[0-9a-f]+", size), received[:300]
                rest = rest[int(size, 16) + 2 :]
                if size == b"0":
                    break
            received = rest


async def probe(router: Running) -> None:
    """The router still serves."""
    body = {"messages": [{"role": "user", "content": "still there?"}]}
    assert (await router.client.post("/v1/chat/completions", json=body)).status_code == 200


def open_connections(port: int) -> int:
    """Clients' connections that the router still holds."""
    held = [each for each in gc.get_objects() if isinstance(each, RouterProtocol) and each.parser is not None]
    return sum(each.server is not None and each.server[1] == port for each in held)


@pytest.mark.timeout(60 + REQUESTS // 20)
async def test_no_bytes_break_the_router_or_reach_the_wrong_client() -> None:
    issued: set[bytes] = set()
    places = asyncio.Semaphore(AT_ONCE)
    answered = refused = 0

    async def one(number: int, port: int) -> None:
        nonlocal answered, refused
        rng = Random(f"{SEED}:{number}")
        own = b"T%016x" % rng.getrandbits(64)
        issued.add(own)
        sent = broken(rng, b"".join(valid(rng, own) for _ in range(rng.choice([1, 1, 1, 2, 4]))))
        async with places:
            received = await client(port, rng, sent)
        check_answers(received)
        others = set(TOKEN.findall(received)) & (issued - {own})
        assert not others, (number, sent, received)
        answered += received.startswith(b"HTTP/1.1 2")
        refused += received.startswith(b"HTTP/1.1 4")

    async with upstream(echo) as worker, running(config(worker.url)) as router:
        for start in range(0, REQUESTS, 1000):
            await asyncio.gather(*(one(number, router.port) for number in range(start, min(REQUESTS, start + 1000))))
            await router.until(lambda all_: all(each["in_flight"] == 0 for each in all_.values()))
            await probe(router)
            async with asyncio.timeout(30):
                while open_connections(router.port) > 2:  # the test's own client keeps one or two
                    await asyncio.sleep(0.05)

    assert answered > REQUESTS / 10
    assert refused > REQUESTS / 10
