"""PyTorch's compiler as the engine: the plan, exported by `torch.export`, through `torch.compile`.

Exported is the plan and not the Keras model, whose `call` makes `torch.compile` give up: a plan is
one graph of torch's own operations for one shape of a batch, without anything of Python between.
"""

from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.errors import CompilationError, one_line
from keras_alexnet.layers import keras
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.engines.torch_steps import MAKERS, OnTorch, Step
from keras_alexnet.optimizing.plan import Plan

torch = require("torch")
inductor_config = require("torch._inductor.config")
F = torch.nn.functional

_HELP = (
    "On a CPU torch compiles with a C++ compiler: install g++ or clang (such as `apt-get install "
    "g++`), or name one in the environment variable CXX. On a GPU it needs triton, which comes "
    'with torch. Without them use engine="torch"'
)


class TorchCompileEngine(OnTorch):
    """A plan on PyTorch, compiled for each shape of a batch; half a minute for a large network."""

    fixed_batches = True

    def __init__(self, model: Any, plan: Plan, batch_size: int | None) -> None:
        super().__init__(plan)
        with torch.no_grad():
            self._network = _Network(plan, self)
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}

    def __call__(self, x: Any) -> Any:
        """Run a batch, an array or tensor in the model's layout; return tensors in that.

        Raises:
            CompilationError: A new shape cannot be compiled.
        """
        # Without the other mode's marks on tensors, that would have everything compiled anew.
        with torch.inference_mode(False), torch.no_grad():
            given = keras.tree.map_structure(self._plain, x)
            shape = tuple(tuple(each.shape) for each in keras.tree.flatten(given))
            if shape in self._compiled:
                return self._compiled[shape](given)
            self._compiled[shape], y = self._compile(given)
            return y

    def _plain(self, x: Any) -> Any:
        x = torch.as_tensor(x, device=self.device).to(torch.float32).contiguous()
        return x.clone() if x.is_inference() else x

    def _compile(self, x: Any) -> tuple[Any, Any]:
        """Compile for the shape of a batch; return that, and what it computes."""
        program = torch.export.export(self._network, (x,), strict=False).module()
        # Buffers are what is frozen below, and arguments elsewhere; other tensors are neither.
        for name, value in list(vars(program).items()):
            if isinstance(value, torch.Tensor):
                delattr(program, name)
                program.register_buffer(name, value)
        compiled = torch.compile(program, fullgraph=True, dynamic=False)
        try:
            # Frozen weights are laid out for oneDNN once, and not in every call.
            with inductor_config.patch(freezing=self.device.type == "cpu"):
                y = compiled(x)
        except torch._dynamo.exc.TorchDynamoException as error:  # whatever its backends raise
            raise CompilationError(
                f"torch.compile cannot compile for {self.device.type} here "
                f"({one_line(error)}). {_HELP}"
            ) from error
        return compiled, y


class _Network(torch.nn.Module):  # type: ignore[name-defined]
    """A plan as a module: what the model takes, in its layout, to its outputs in that."""

    def __init__(self, plan: Plan, engine: OnTorch) -> None:
        super().__init__()
        self._engine, self._outputs = engine, plan.outputs
        makers: dict[type[op.Operation], Any] = MAKERS | {op.LRN: _sliced_lrn}
        self._steps = [(makers[type(each)](each, engine), each.inputs) for each in plan.operations]

    def forward(self, x: Any) -> Any:
        """Compute the plan."""
        values = [self._engine.given(x)]
        for step, inputs in self._steps:
            values.append(step(*[values[i] for i in inputs]))
        return self._engine.returned(values, self._outputs)


def _sliced_lrn(each: op.LRN, engine: OnTorch) -> Step:
    """Sums of shifted slices, which the compiler makes one loop of."""
    ends = each.size // 2, (each.size - 1) // 2

    def run(x: Any) -> Any:
        channels = x.shape[-1]
        squares = F.pad(x.square(), ends)  # (N, H, W, C + size - 1)
        total = sum(squares[..., i : i + channels] for i in range(each.size))
        d = each.k + each.alpha / each.size * total
        return x * ((d * d.sqrt()).rsqrt() if each.beta == 0.75 else d.pow(-each.beta))

    return run
