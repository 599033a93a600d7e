"""Training: experiments as data, the loop that runs one, and what a run leaves behind.

`run` is the way in. Imports everything below but `exporting` and `optimizing`.
"""
