"""The commands of `keras-alexnet`; `cli.py` registers them.

Their modules import no framework: a command chooses the backend first.
"""
