"""Checkpoints into `.keras` files and back, with a record of where they are from.

Imports `weights`, `checkpoints` and `torch_side`; Keras in functions.
"""
