# %% [markdown]
# # The CIFAR-100 study
#
# Eight experiments with one AlexNet: what do crops, flips, normalisation, batch size, learning rate
# and optimiser do to what it learns? The study's have up to twenty epochs of 50,000 images of 227 x
# 227 pixels, which take two days on two cores ([how to run them](../../docs/cifar100-study.md)).
# Here two of them, which differ in the size of their batches, learn a few images of 32 x 32 pixels,
# by the same two commands; and with another AlexNet, whose batch norm behind every layer lets it
# learn in a minute.
#
# * **Time**: 80 seconds on two cores with the digits, 88 with images in CIFAR-100's format.
# * **Data**: CIFAR-100 where the environment variable `CIFAR100` names its folder
#   (`cifar-100-python`) or archive: two epochs of 2,000 images. Elsewhere scikit-learn's digits,
#   which are embedded, enlarged to CIFAR's size.
# * **Needs**: `pip install 'keras-alexnet[torch,train]'`. Any backend will do that `KERAS_BACKEND`
#   names; torch compiles nothing, which would take longer than so short a training.

# %%
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.pop("FORCE_COLOR", None)  # Jupyter's; text is to be plain here

from IPython.display import Markdown

import keras_alexnet

study = Path("runs", f"study-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
place = os.environ.get("CIFAR100")


def command(*words):
    """Run `keras-alexnet` in a process of its own, and return what it prints."""
    line = [sys.executable, "-m", "keras_alexnet", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# %% [markdown]
# ## The experiments
#
# The study's are presets, which also know what it reported.

# %%
for name in keras_alexnet.list_presets("cifar100-study-*"):
    preset = keras_alexnet.find_preset(name)
    print(f"{preset.about}, {preset.experiment.epochs} epochs\n    {preset.reported}")

# %% [markdown]
# ## The runs
#
# `train --presets` runs experiments one after the other; its options change all of them. Without
# those of `shorter`, and with `'cifar100-study-*'`, this is the study as it was. Whatever stops it,
# the same command goes on from there.

# %%
names = ("cifar100-study-4", "cifar100-study-7")
data = ("--data-dir", place) if place else ("--data", "digits-rgb")
shorter = ("--model", "alexnet_cifar", "--input-size", 32, "--resize", 34, "--epochs", 2)
shorter += ("--train-limit", 2000, "--eval-limit", 1000, "--val-fraction", 0.1)
shorter += ("--learning-rate", 0.02, "--momentum", 0.9)
said = command("train", "--presets", ",".join(names), *data, *shorter, "--output", study)
print(said.partition("\nruns\n")[0])  # the table of the runs follows, which is below

# %% [markdown]
# ## The table
#
# The best first. The page has the same, the curves, and links to each run's own report.

# %%
columns = "test_accuracy,test_top5,test_macro_f1,train_accuracy,batch_size,seconds,reported"
chosen = ("--columns", columns, "--sort", "test_accuracy", "--format", "markdown")
Markdown(command("compare", study, *chosen, "--html", study / "study.html"))

# %% [markdown]
# Guessing is right once in 100 times, in 10 of digits. Larger batches are fewer steps: in as many
# epochs less is learnt, which the study saw too.
#
# In Python runs are read back, and a notebook draws them.

# %%
runs = keras_alexnet.read_runs([study])
records = keras_alexnet.compare_runs(runs).records
keras_alexnet.compare_curves([run.name for run in runs], [run.rows for run in runs], records)

# %% [markdown]
# ## The best run, class by class

# %%
best = max(runs, key=lambda run: run.evaluation["top1"])
print(best.name)
keras_alexnet.confusion_matrix(best.evaluation["confusion"], best.evaluation["classes"])
