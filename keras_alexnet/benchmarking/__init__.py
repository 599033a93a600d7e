"""How fast models are, against each other and against torchvision, measured in turns.

Every competitor lives in a process of its own. `plan` says what is measured, `runner` lets the
competitors take turns, `child` is what runs in their processes, `report` says what was found.
Imports all of the package but `commands`.
"""
