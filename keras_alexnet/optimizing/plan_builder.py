"""A plan under construction: which values there are, and which operations others can take in."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_alexnet.optimizing import operations as op


@dataclass
class Builder:
    """A plan under construction, which converters add operations to."""

    data_format: str
    uses: Counter[int]  # how often a Keras tensor is read, by its id
    operations: list[op.Operation] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)  # which value a Keras tensor is, by its id
    # Keras tensors that no image changes, by their id.
    constants: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in a batch of maps."""
        return 3 if self.data_format == "channels_last" else 1

    def spatial(self, tensor: Any) -> tuple[int | None, int | None]:
        """Return height and width of a batch of maps, None where they vary."""
        start = 1 if self.data_format == "channels_last" else 2
        return tensor.shape[start], tensor.shape[start + 1]

    def last_axis(self, tensor: Any) -> int:
        """Return the axis of a tensor that an operation has last: the channels of a map."""
        return self.channel_axis if len(tensor.shape) == 4 else len(tensor.shape) - 1

    def is_reordered(self, tensor: Any) -> bool:
        """Say whether an operation has a tensor's axes in another order than the model."""
        return self.data_format == "channels_first" and len(tensor.shape) == 4

    def value(self, tensor: Any) -> int:
        """Return which value a Keras tensor is; a constant becomes one where it is first read."""
        if id(tensor) not in self.values and id(tensor) in self.constants:
            value = self.constants[id(tensor)]
            value = value.transpose(0, 2, 3, 1) if self.is_reordered(tensor) else value
            self.values[id(tensor)] = self.add(op.Constant(tensor.name, (), value))
        return self.values[id(tensor)]

    def name_inputs(self, inputs: list[Any]) -> None:
        """Note which values a model's inputs are."""
        if len(inputs) == 1:
            self.values[id(inputs[0])] = 0
            return
        for index, tensor in enumerate(inputs):
            self.values[id(tensor)] = self.add(op.Part(tensor.name, (0,), index))

    def name_value(self, tensor: Any, number: int, sources: list[Any]) -> None:
        """Note which value a Keras tensor is, made from others.

        One that is handed on unchanged has the readers of the tensor before as well.
        """
        self.values[id(tensor)] = number
        for source in sources:
            if self.values.get(id(source)) == number:
                self.uses[id(tensor)] += self.uses[id(source)] - 1

    def fusible(self, tensor: Any, *kinds: type[op.Operation]) -> Any:
        """Return the operation that makes a tensor, or None.

        It is None for another kind of operation, and for a tensor that something else reads too.
        """
        number = self.value(tensor)
        if number == 0 or self.uses[id(tensor)] != 1:
            return None
        made_by = self.operations[number - 1]
        return made_by if isinstance(made_by, kinds) else None

    def replace(self, tensor: Any, operation: op.Operation) -> int:
        """Put an operation in the place of the one that makes a tensor; return its value."""
        number = self.value(tensor)
        self.operations[number - 1] = operation
        return number

    def add(self, operation: op.Operation) -> int:
        """Append an operation; return its value."""
        self.operations.append(operation)
        return len(self.operations)

    def never_negative(self, number: int) -> bool:
        """Say whether no element of a value can be below zero."""
        if number == 0:
            return False
        operation = self.operations[number - 1]
        if isinstance(operation, op.MaxPool | op.Concat | op.Repeat):
            return all(map(self.never_negative, operation.inputs))
        return op.never_negative(operation)

    def finish(self, outputs: Iterable[Any]) -> tuple[tuple[op.Operation, ...], list[int]]:
        """Return the operations that outputs need, numbered anew, and which values these are."""
        returned = list(map(self.value, outputs))
        needed, pending = set(), list(returned)
        while pending:
            number = pending.pop()
            if number and number not in needed:
                needed.add(number)
                pending += self.operations[number - 1].inputs
        kept = sorted(needed)
        numbers = {0: 0} | {old: new for new, old in enumerate(kept, 1)}
        operations = tuple(
            replace(each, inputs=tuple(numbers[i] for i in each.inputs))
            for each in (self.operations[old - 1] for old in kept)
        )
        return operations, [numbers[old] for old in returned]
