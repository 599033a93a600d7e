"""Optimisers, schedules and losses with PyTorch's arithmetic.

Imports Keras, and nothing else of `training`.
"""
