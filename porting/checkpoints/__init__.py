"""Weights files of all kinds into named arrays, checked before they are read, and back.

Imports nothing else of this package but its errors, and no framework until a function needs one.
"""
