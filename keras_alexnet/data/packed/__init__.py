"""Data sets packed into a few large files, which are read in sequence: TFRecord shards."""
