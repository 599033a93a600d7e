# %% [markdown]
# # Training parity
#
# Ten steps of SGD in torch and ten in Keras, from the same weights on the same batches: do both end
# with the same weights? `check_training` computes both sides in processes of their own, in float64
# and in float32, and compares every tensor step by step. LeNet-5 is quick to compute; a name such
# as `googlenet` or `torchvision:resnet18` in its place takes minutes.
#
# * **Time**: under a minute on two cores.
# * **Data**: none but seeded noise with structure, and seeded weights.
# * **Needs**: `pip install 'keras-alexnet[torch,report]'`, and every backend to be compared.

# %%
import tempfile
from pathlib import Path

import keras_alexnet
import porting

request = porting.TrainingRequest("lenet5", steps=10, learning_rate=0.01)
with tempfile.TemporaryDirectory() as folder:
    result = porting.check_training(request, Path(folder), say=print)

# %% [markdown]
# *All weights* is the distance of all parameters as one vector, *farthest* that of the tensor that
# is farthest off, both relative to the way that torch's steps took. Float64 is judged; float32
# shows what rounding alone does to the same steps, torch's own in the first row.

# %%
result

# %% [markdown]
# How the distance grows from step to step, on a scale of powers of ten:

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(8, 3.6), layout="constrained")
axes = figure.subplots()
for cell in result.cells:
    steps = [step.number for step in cell.steps]
    style = "-" if cell.precision == "float64" else ":"
    axes.semilogy(
        steps,
        [step.relative for step in cell.steps],
        style,
        label=f"{cell.backend}, {cell.precision}",
    )
limit = porting.TOLERANCES["training"].limit
axes.axhline(limit, color="black", linewidth=0.8, linestyle="--", label="tolerance")
axes.set(xlabel="step", title="largest distance of a tensor from torch's in float64")
axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
axes.grid(visible=True, linewidth=0.3)
assert result.passed

keras_alexnet.Picture(figure)
