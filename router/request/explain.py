"""Response headers that say why a request went where it went, for clients that ask with `x-trieway-explain: 1`."""

from __future__ import annotations

from router.types import Decision


def explain_headers(decision: Decision) -> list[tuple[bytes, bytes]]:
    """`x-trieway-*` headers of one decision: worker, reason, expected match in tokens, expected TTFT in seconds."""
    headers = [
        (b"x-trieway-worker", decision.worker.encode("latin-1", "replace")),
        (b"x-trieway-reason", decision.reason.value.encode()),
        (b"x-trieway-match-tokens", f"{decision.match_tokens:.0f}".encode()),
    ]
    if decision.expected_ttft_s is not None:
        headers.append((b"x-trieway-expected-ttft-s", f"{decision.expected_ttft_s:.4f}".encode()))
    return headers
