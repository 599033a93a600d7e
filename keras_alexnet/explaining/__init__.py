"""Why a model guesses what it does: its filters, its maps, and what its scores rest on.

`gradients` alone knows backends; `attribution` and `neighbours` are arithmetic on arrays, and
`pictures` draws them. Imports `inference` and `models`; knows nothing of training.
"""
