"""What follows from a request's head: which of its lines go on to which worker, and who sent it."""

from __future__ import annotations

from router.request.head import WAYS, Head

KEY = ("authorization", "Bearer worker")
HEAD = [
    (b"host", b"x"), (b"content-length", b"5"), (b"accept", b"*/*"), (b"authorization", b"Bearer client"),
    (b"connection", b"keep-alive, x-private"), (b"x-private", b"1"), (b"traceparent", b"00-1-2-01"),
    (b"x-request-id", b"mine"), (b"x-request-id", b"mine too"),
]  # fmt: skip


def head() -> Head:
    return Head("/generate", b"/generate?x=1", list(HEAD))


def names(lines: bytes) -> list[bytes]:
    return [line.partition(b":")[0] for line in lines.split(b"\r\n") if line]


def test_what_concerns_the_clients_connection_or_is_written_anew_does_not_go_on() -> None:
    assert names(head().lines((), closed=False, traced=False)) == [b"accept", b"authorization", b"traceparent"]


def test_a_closed_router_keeps_the_clients_credentials_and_a_traced_request_its_own_parent() -> None:
    assert names(head().lines((), closed=True, traced=True)) == [b"accept"]


def test_a_workers_own_headers_count_more_than_the_clients() -> None:
    lines = head().lines((KEY,), closed=False, traced=False)

    assert names(lines) == [b"accept", b"traceparent", b"authorization"]
    assert b"authorization: Bearer worker\r\n" in lines


def test_each_worker_gets_its_own_lines_however_many_there_are_and_whichever_comes_first() -> None:
    one = head()
    for number in [*range(2 * WAYS), *range(2 * WAYS)]:
        extra = (("x-data-parallel-rank", str(number)),)
        assert b"x-data-parallel-rank: %d\r\n" % number in one.lines(extra, closed=False, traced=False)
        assert len(one._lines) <= WAYS
    assert b"rank" not in one.lines((), closed=False, traced=False)


def test_the_last_of_two_ids_counts_and_one_that_is_no_id_does_not() -> None:
    assert head().given_id == "mine too"
    assert Head("/generate", b"/generate", [(b"x-request-id", b"\xff")]).given_id is None
    assert Head("/generate", b"/generate", []).given_id is None


def test_headers_are_also_there_as_text() -> None:
    one = head()
    assert one.texts["authorization"] == "Bearer client"
    assert one.texts is one.texts
    assert (one.text(b"accept"), one.text(b"nothing")) == ("*/*", None)
