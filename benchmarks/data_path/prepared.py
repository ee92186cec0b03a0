"""Prepared model calls for load.c: files of [u32 length][raw HTTP request], made anew from a seed.

Bodies are chat completions of about the given size whose first half is one of eight shared prefixes; "@@@@@@@@" in the
last quarter is overwritten with a counter while the load runs, so that no two requests are equal.
"""

from __future__ import annotations

import json
import struct
import sysconfig
from pathlib import Path
from random import Random

SIZES = {"200B": (120, 512), "4kB": (3_800, 512), "40kB": (39_000, 256), "400kB": (390_000, 64)}
"""Name of a body size: bytes of text in it, and how many different requests its file holds."""
EVENT_GAP_100US = 150
"""Streams send an event every 15 ms: 20 streams make 1,300 events a second, about what one busy GPU makes."""


def write_requests(folder: Path, seed: int = 7) -> None:
    """Writes one file per body size, and `stream.bin`: 4 kB bodies that ask for 64 paced events."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(seed)
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:120]
    text = "".join(path.read_text(errors="ignore") for path in sources)
    for name, (size, count) in SIZES.items():
        _write(folder / f"{name}.bin", rng, text, size, count, {})
    streamed = {"stream": True, "seed": EVENT_GAP_100US}
    _write(folder / "stream.bin", rng, text, *SIZES["4kB"], streamed)


def _write(path: Path, rng: Random, text: str, size: int, count: int, fields: dict[str, object]) -> None:
    def piece(length: int) -> str:
        start = rng.randrange(len(text) - length)
        return text[start : start + length]

    prefixes = [piece(size // 2) for _ in range(8)]
    with path.open("wb") as file:
        for i in range(count):
            user = f"{piece(size // 4)} @@@@@@@@ {piece(size // 4)}"
            messages = [{"role": "system", "content": prefixes[i % 8]}, {"role": "user", "content": user}]
            body = json.dumps({"model": "mock", "messages": messages, "max_tokens": 64, **fields}).encode()
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
                f"Content-Type: application/json\r\nAuthorization: Bearer none\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            raw = head.encode() + body
            file.write(struct.pack("<I", len(raw)) + raw)
