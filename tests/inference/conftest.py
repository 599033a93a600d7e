"""A small model."""

from helpers.small import small  # noqa: F401
