# %% [markdown]
# # AlexNet against GoogLeNet
#
# The lab of the report: both networks learn the same images by the same recipe, and a table says
# what each of them costs and reaches. The report's ten epochs of 224 x 224 pixels took from half an
# hour to two hours; here the images are small, few, and learnt from by Adam, which is quicker to
# begin with.
#
# * **Time**: 93 seconds on two cores with CIFAR-10.
# * **Data**: CIFAR-10 where the environment variable `CIFAR10` names its folder
#   (`cifar-10-batches-py`) or archive, 500 images of it. Elsewhere as many of scikit-learn's
#   digits, which are embedded.
# * **Needs**: `pip install 'keras-alexnet[tensorflow,train]'`; `torch` or `jax` will do as well.

# %%
import os
import subprocess
import sys
import time
from pathlib import Path

import keras_alexnet

folder = Path("runs", f"lab-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
place = os.environ.get("CIFAR10")

# %% [markdown]
# ## What they cost
#
# Parameters, and multiply-accumulates for an image of the networks' own size. AlexNet has ten times
# GoogLeNet's parameters, most of them in its dense layers, and computes half as much.
# The command `keras-alexnet summary googlenet_lab` tells it layer by layer.

# %%
from IPython.display import Markdown, display

command = [sys.executable, "-m", "keras_alexnet", "models", "*net_l*", "--format", "markdown"]
Markdown(subprocess.check_output(command, text=True))

# %% [markdown]
# ## Two runs
#
# The presets are the report's. What is changed is the same for both.

# %%
changes = {"input_size": 80, "resize": 90, "batch_size": 16, "epochs": 3}
changes |= {"train_limit": 500, "eval_limit": 300, "optimizer": "adam", "learning_rate": 3e-4}
if place:
    changes |= {"data_dir": Path(place)}
else:  # a digit's mirror image is none
    changes |= {"data": "digits-rgb", "flip": 0.0}
for name in ("cifar10-lab-alexnet-lrn", "cifar10-lab-googlenet"):
    preset = keras_alexnet.find_preset(name)
    print(f"{preset.about}: {preset.reported}")
    experiment = preset.experiment.override(**changes)
    keras_alexnet.run_experiment(experiment, output=folder / name, preset=name)

# %% [markdown]
# ## Side by side

# %%
runs = keras_alexnet.read_runs(sorted(folder.iterdir()))
columns = ["model", "parameters", "test_accuracy", "test_loss", "train_accuracy", "seconds"]
table = keras_alexnet.compare_runs(runs, [*columns, "reported"], sort="test_accuracy")
table

# %%
keras_alexnet.compare_curves(
    [run.name for run in runs],
    [run.rows for run in runs],
    keras_alexnet.compare_runs(runs).records,
)

# %% [markdown]
# Where each of them errs:

# %%
for run in runs:
    print(run.name)
    display(keras_alexnet.confusion_matrix(run.evaluation["confusion"], run.evaluation["classes"]))

# %%
page = keras_alexnet.write_comparison(runs, folder / "comparison.html")
print(f"the same as a page, with links to the runs' own: {page}")
