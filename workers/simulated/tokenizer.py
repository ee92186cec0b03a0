"""The stand-in tokenizer: text to token ids and back, without a vocabulary file.

Text between special tokens is cut into groups of four UTF-8 bytes, and a group read as a little-endian integer is its
token id; a last, shorter group is filled with 0xFF, which no UTF-8 text contains. So every id fits 32 bits (as SGLang's
block hashes need), any two processes agree on every id, and `encode` runs at memory speed. A special token ends the
group before it, so encode(a + b) starts with encode(a) whenever b starts with one. Called by chat_template and the API.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence

BYTES_PER_TOKEN = 4
"""English text in the tokenizers of current models averages about four bytes a token; here it is exact."""

_FILL = 0xFF
_SPECIAL_LEAD = 0xF8  # no UTF-8 text contains this byte either: the first byte of every special token
SPECIAL_NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|audio_pad|>", "<|video_pad|>")
SPECIAL_IDS = {name: _SPECIAL_LEAD | (index << 8) for index, name in enumerate(SPECIAL_NAMES)}
EOS_ID = SPECIAL_IDS["<|im_end|>"]
"""The token that ends a turn, as in ChatML."""

VOCABULARY_SIZE = 1 << 32

# A header such as "<|im_start|>assistant\n" and the newline after "<|im_end|>" belong to the special token before them,
# so that the text of a message always starts a fresh group: generated tokens then equal those of the echoed text.
_BOUNDARY = re.compile(
    r"(<\|im_start\|>(?:[a-z]+\n)?|<\|im_end\|>\n?|<\|(?:endoftext|image_pad|audio_pad|video_pad)\|>)"
)
_NAME_OF_ID = {token: name for name, token in SPECIAL_IDS.items()}
_SPECIAL_PREFIX = re.compile(r"<\|[a-z_]+\|>")


class Tokenizer:
    """Reversible and stateless apart from a small cache of message headers."""

    def __init__(self) -> None:
        self._boundaries: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens written out in it become themselves. Lone surrogates become '?'."""
        if "<|" not in text:
            return _encode_plain(text)
        ids: list[int] = []
        for index, piece in enumerate(_BOUNDARY.split(text)):
            if piece:
                ids.extend(self._boundary(piece) if index % 2 else _encode_plain(piece))
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD. Raises ValueError for ids outside 32 bits."""
        parts: list[bytes] = []
        for token in ids:
            name = _NAME_OF_ID.get(token)
            if name is None:
                parts.append(_bytes_of(token))
            elif not skip_special:
                parts.append(name.encode())
        return b"".join(parts).decode("utf-8", errors="replace")

    def _boundary(self, piece: str) -> tuple[int, ...]:
        """Ids of a special token with the header or newline that belongs to it."""
        known = self._boundaries.get(piece)
        if known is None:
            match = _SPECIAL_PREFIX.match(piece)
            name = match.group() if match else piece
            known = (SPECIAL_IDS[name], *_encode_plain(piece[len(name) :]))
            if len(self._boundaries) < 1024:  # headers are few; text made to look like them must not grow us
                self._boundaries[piece] = known
        return known


def _encode_plain(text: str) -> list[int]:
    data = text.encode("utf-8", errors="replace")
    missing = -len(data) % BYTES_PER_TOKEN
    if missing:
        data += bytes((_FILL,)) * missing
    return list(struct.unpack(f"<{len(data) // BYTES_PER_TOKEN}I", data))


def _bytes_of(token: int) -> bytes:
    if not 0 <= token < VOCABULARY_SIZE:
        raise ValueError(f"token id {token} is outside [0, {VOCABULARY_SIZE})")
    return token.to_bytes(BYTES_PER_TOKEN, "little").rstrip(b"\xff")


def is_special(token: int) -> bool:
    """Whether `token` carries no text."""
    return token in _NAME_OF_ID


def longest_common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    shared = min(len(left), len(right))
    for index in range(shared):
        if left[index] != right[index]:
            return index
    return shared
