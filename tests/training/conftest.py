"""A small model's files."""

from helpers.small import small, small_files  # noqa: F401
