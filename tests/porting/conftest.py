"""Fixtures of networks with live weights, and of a small model."""

from helpers.networks import nets, state_dicts  # noqa: F401
from helpers.small import small  # noqa: F401
