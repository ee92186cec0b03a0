"""The C library's allocator in a router: memory of large bodies is kept for the next ones. Called by serving.

glibc gives the system back what is free at the end of its heap as soon as that is twice the largest block it ever
mapped by itself, so that a router whose bodies are of one size gave their memory back and took it again, page by page,
with every other request: 31 page faults a request of 400 kB. Elsewhere this does nothing.
"""

from __future__ import annotations

BLOCK_BYTES = 8 * 2**20
"""Blocks up to this size come from the heap, at whose end at most twice as much is kept."""


def keep_memory() -> None:
    """Show the allocator one block of that size: it sets these limits by what it has seen freed (mallopt(3))."""
    bytes(BLOCK_BYTES)  # mapped and given back, never touched
