"""Fixtures of networks with live weights, and of a small model's files."""

from helpers.networks import live, nets, state_dicts, torch_outputs  # noqa: F401
from helpers.small import small, small_files  # noqa: F401
