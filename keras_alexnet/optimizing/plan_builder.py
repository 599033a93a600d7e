"""A plan under construction: which values there are, and which operations others can take in."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from keras_alexnet.optimizing import operations as op


@dataclass
class Builder:
    """A plan under construction, which converters add operations to."""

    data_format: str
    uses: Counter[int]  # how often a Keras tensor is read, by its id
    operations: list[op.Operation] = field(default_factory=list)
    values: dict[int, int] = field(default_factory=dict)  # which value a Keras tensor is, by its id

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in a batch of maps."""
        return 3 if self.data_format == "channels_last" else 1

    def spatial(self, tensor: Any) -> tuple[int | None, int | None]:
        """Return height and width of a batch of maps, None where they vary."""
        start = 1 if self.data_format == "channels_last" else 2
        return tensor.shape[start], tensor.shape[start + 1]

    def value(self, tensor: Any) -> int:
        """Return which value a Keras tensor is."""
        return self.values[id(tensor)]

    def name_value(self, tensor: Any, number: int, sources: list[Any]) -> None:
        """Note which value a Keras tensor is, made from others.

        One that is handed on unchanged has the readers of the tensor before as well.
        """
        self.values[id(tensor)] = number
        for source in sources:
            if self.value(source) == number:
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
        if isinstance(operation, op.Conv | op.Dense):
            return operation.relu
        if isinstance(operation, op.MaxPool | op.Concat | op.Repeat):
            return all(map(self.never_negative, operation.inputs))
        return isinstance(operation, op.Activation) and operation.function != "tanh"
