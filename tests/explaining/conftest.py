"""Networks with live weights."""

from helpers.networks import live, nets, state_dicts  # noqa: F401
