# %% [markdown]
# # The CIFAR-100 study
#
# Eight experiments with one AlexNet: which of crops, flips, normalisation, batch size, learning
# rate and optimiser make it learn? The study's have up to twenty epochs of 50,000 images; here each
# experiment has two of a few hundred small ones. That shows the way and not the results: in thirty
# steps this network learns next to nothing, so accuracies are near those of guessing.
#
# * **Time**: about two minutes on two cores.
# * **Data**: CIFAR-100 where the environment variable `CIFAR100` names its folder
#   (`cifar-100-python`) or archive, 600 images of it. Elsewhere as many of scikit-learn's digits,
#   which are embedded.
# * **Needs**: `pip install 'keras-alexnet[tensorflow,train]'`; `torch` or `jax` will do as well.

# %%
import logging
import os
import time
from pathlib import Path

import keras_alexnet

# TensorFlow takes the second network in a process for a first one that is traced again.
logging.getLogger("tensorflow").setLevel("ERROR")

folder = Path("runs", f"study-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
place = os.environ.get("CIFAR100")

# %% [markdown]
# ## The experiments
#
# The study's are presets, which also know what it reported. `override` changes them: leave it out,
# but for `data_dir`, to run the study as it was. (The command `keras-alexnet train --presets
# 'cifar100-study-*' --output study` does that, and goes on where it was stopped.)

# %%
presets = {
    name: keras_alexnet.find_preset(name) for name in keras_alexnet.list_presets("cifar100-study-*")
}
for name, preset in presets.items():
    print(f"{name}: {preset.experiment.augmentation.in_words()}; reported {preset.reported}")

# %% [markdown]
# ## The runs
#
# Images of 67 pixels instead of 227, and two epochs; the rest of each experiment is the study's.
# (Flips stay too, though a digit's mirror image is none.)

# %%
changes = {"input_size": 67, "train_limit": 600, "eval_limit": 300, "val_fraction": 0.2}
changes |= {"data_dir": Path(place)} if place else {"data": "digits-rgb"}
for name, preset in presets.items():
    resize = 67 if preset.experiment.augmentation.crop == "center" else 70
    experiment = preset.experiment.override(epochs=2, resize=resize, **changes)
    keras_alexnet.run_experiment(experiment, output=folder / name, preset=name)

# %% [markdown]
# ## The table
#
# The best first. The page has the same, the curves, and links to each run's own report.

# %%
runs = keras_alexnet.read_runs([folder / name for name in presets])
columns = ["test_accuracy", "test_macro_f1", "reported", "train_accuracy", "optimizer"]
columns += ["learning_rate", "batch_size", "augmentation", "seconds"]
table = keras_alexnet.compare_runs(runs, columns, sort="test_accuracy")
page = keras_alexnet.write_comparison(runs, folder / "study.html", sort="test_accuracy")
print(page)
table

# %%
keras_alexnet.compare_curves(
    list(presets), [run.rows for run in runs], keras_alexnet.compare_runs(runs).records
)

# %% [markdown]
# ## The best run, class by class

# %%
best = keras_alexnet.read_run(folder / table.records[0]["run"])
print(best.name)
keras_alexnet.confusion_matrix(best.evaluation["confusion"], best.evaluation["classes"])
