"""Trieway's router: public names only."""

from router.app import create_app
from router.config import RouterConfig
from router.errors import RouterError
from router.policies.base import Policy
from router.types import Decision, Outcome

__all__ = ["Decision", "Outcome", "Policy", "RouterConfig", "RouterError", "create_app"]
