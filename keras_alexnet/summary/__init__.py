"""What a spec costs and looks like, by arithmetic alone.

Imports `specs` and `core`, no framework but matplotlib for the picture.
"""
