"""The commands of `keras-alexnet`, a module each; `app` registers them, `main` runs them.

Their modules import no framework: a command chooses the backend first.
"""
