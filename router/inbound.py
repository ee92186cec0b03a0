"""uvicorn's HTTP/1.1 protocol with our limits and our error shape for what never becomes a request.

Bounds the request line and headers, and answers malformed HTTP in OpenAI's error shape. Given to uvicorn as `http=`.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.errors import HeadersTooLarge, InvalidBody, RouterError


def limited_protocol(max_header_bytes: int) -> type[HttpToolsProtocol]:
    """A protocol class whose requests may have at most that many bytes of request line and headers."""

    class LimitedProtocol(HttpToolsProtocol):
        _header_bytes = 0
        _unparsed_bytes = 0
        _in_headers = True

        def on_message_begin(self) -> None:
            self._header_bytes = 0
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value) + 4)
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_headers = False
            if self._header_bytes > max_header_bytes:
                raise ValueError("headers too large")  # the parser stops and send_400_response says why
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._in_headers = True
            self._unparsed_bytes = 0
            super().on_message_complete()

        def data_received(self, data: bytes) -> None:
            if self._in_headers:
                self._unparsed_bytes += len(data)
            super().data_received(data)
            if self._in_headers and self._unparsed_bytes > max_header_bytes and not self.transport.is_closing():
                self._refuse_headers()

        def send_400_response(self, msg: str) -> None:
            if self._header_bytes > max_header_bytes:
                self._refuse_headers()
            else:
                self._refuse(InvalidBody(f"This is not a valid HTTP/1.1 request: {msg}"))

        def _refuse_headers(self) -> None:
            self._refuse(
                HeadersTooLarge(
                    f"The request line and headers are over the limit of {max_header_bytes:,} bytes "
                    "(--max-header-bytes)."
                )
            )

        def _count(self, size: int) -> None:
            self._header_bytes += size

        def _refuse(self, error: RouterError) -> None:
            body = error.body()
            head = (
                f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    protocol: type[Any] = LimitedProtocol
    return protocol
