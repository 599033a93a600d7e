"""Data: what exists on disk, how it is augmented, and how batches reach the model."""
