"""A small model's files, and a small run."""

from helpers.small import small, small_files  # noqa: F401
from helpers.training import run  # noqa: F401
