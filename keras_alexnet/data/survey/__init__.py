"""What a data set holds, found in one pass over its images: `survey` makes it, `results` tell it.

Imports `examples`, `decoding` and `statistics`.
"""
