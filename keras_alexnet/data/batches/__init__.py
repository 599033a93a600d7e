"""Batches for training and evaluation, the same for a seed wherever they are made.

`plan` says what an epoch does, `arrays` and `files` do it. Imports `augmentation`, not `sources`.
"""
