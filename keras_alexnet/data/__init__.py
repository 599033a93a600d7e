"""Data: what exists on disk, how it is decoded and augmented, how batches reach the model.

TensorFlow is imported here alone, in functions. Imports `specs`, `core` and `errors`.
"""
