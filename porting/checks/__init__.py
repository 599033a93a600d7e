"""One forward pass and one gradient in torch and in Keras, compared layer by layer.

`check` takes the user's words, `parity` runs the children `reference` and `candidate`, `results`
and `report` say what came out. Imports all below `commands` but `training_checks`.
"""
