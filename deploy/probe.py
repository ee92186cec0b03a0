"""A container's health check: `probe.py PORT PATH` succeeds when 127.0.0.1:PORT answers 200 to a GET of PATH.

In the images because they hold no curl. http.client, since it heeds no proxy settings that Docker may put in.
"""

from __future__ import annotations

import http.client
import sys

TIMEOUT_S = 5.0


def main() -> int:
    """The exit status: 0 healthy, 1 not."""
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=TIMEOUT_S)
    try:
        connection.request("GET", sys.argv[2])
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{sys.argv[2]}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stderr.write(f"{sys.argv[2]}: {status}\n")
    return int(status != 200)


if __name__ == "__main__":
    sys.exit(main())
