"""Faster ways, per backend, to compute what stock layers compute; they are in no file.

`quicken` chooses; the others import their backend when they are imported.
"""
