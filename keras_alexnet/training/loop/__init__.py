"""The epochs of a run: `fit` and its hooks, progress, checkpoints, results.

`engine` ties them together.
"""
