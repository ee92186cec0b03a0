"""Entry for Locust: `locust -f loadtests/locustfile.py --host http://127.0.0.1:8080`.

Without names of user classes all of them run, by their weights: that is the mix. Name some to run only those, for
example `locust -f loadtests/locustfile.py --headless -u 50 -r 5 -t 2m --host ... AgentUser DocumentUser`.
"""

from __future__ import annotations

from loadtests.locust_run import register
from loadtests.users import (
    AgentUser,
    ChattingUser,
    DocumentUser,
    FewShotUser,
    MixedUser,
    OneOffUser,
    SharedPromptUser,
    ShareGptUser,
)

__all__ = ["AgentUser", "ChattingUser", "DocumentUser", "FewShotUser", "MixedUser", "OneOffUser", "ShareGptUser",
           "SharedPromptUser"]  # fmt: skip

register()
