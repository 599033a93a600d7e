# %% [markdown]
# # Fine-tune a converted network on a folder of photos
#
# A network of torchvision becomes a `.keras` file, learns the classes of a folder, is evaluated,
# and names what is on single photos.
#
# * **Time**: 68 seconds on two cores, 66 with a folder of 73 photos.
# * **Data**: the folder that the environment variable `PHOTOS` names, with a folder of photos for
#   each class; 300 of them are used. Elsewhere crops of scikit-learn's two sample photos, which are
#   embedded: left parts to learn from, right parts to test on.
# * **Needs**: `pip install 'keras-alexnet[torch,tensorflow,train]'`.

# %%
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import keras_alexnet

folder = Path("runs", f"photos-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
folder.mkdir(parents=True)

# %% [markdown]
# ## The photos
#
# Class folders, within `train` and `test` or without. Where there is no `test`, results are those
# of the fifth that is kept for validation.

# %%
if "PHOTOS" in os.environ:
    photos = Path(os.environ["PHOTOS"])
else:
    photos, rng = folder / "photos", np.random.default_rng(0)
    for name, pixels in zip(("temple", "dahlia"), load_sample_images().images, strict=True):
        for part, columns, count in (("train", (0, 384), 40), ("test", (384, 640), 15)):
            (photos / part / name).mkdir(parents=True)
            for number in range(count):
                side = int(rng.integers(100, 200))
                top = int(rng.integers(0, pixels.shape[0] - side))
                left = int(rng.integers(columns[0], columns[1] - side))
                crop = pixels[top : top + side, left : left + side]
                Image.fromarray(crop).save(photos / part / name / f"{number}.jpg", quality=95)
data = keras_alexnet.find_data(str(photos))
keras_alexnet.survey_data(data)

# %% [markdown]
# ## The network
#
# In a process of its own, as torchvision and TensorFlow do not share one. The environment variable
# `SOURCE` names weights: a `.pth` file of yours, or `IMAGENET1K_V1`, which downloads torchvision's
# own. They know photos already. Without it, so that the notebook needs no network connection, the
# weights are random ones from a seed, and everything has to be learnt here.

# %%
source = os.environ.get("SOURCE")
if source is None:
    code = """
import sys, torch, torchvision
torch.manual_seed(0)
torch.save(torchvision.models.resnet18().state_dict(), sys.argv[1])
"""
    source = folder / "resnet18.pth"
    subprocess.run([sys.executable, "-c", code, source], check=True)


def run(*words):
    """Run a command of ours and show what it prints."""
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr if done.returncode else "", sep="")
    assert done.returncode == 0


converted = folder / "resnet18.keras"
run(
    *("porting", "convert", "torchvision:resnet18", "--source", source),
    *("--input-size", 96, "--output", converted),
)

# %% [markdown]
# ## The training
#
# The first epoch trains the new classifier alone, the others everything. On the command line:
# `keras-alexnet train --weights resnet18.keras --data photos --freeze-epochs 1`.

# %%
experiment = keras_alexnet.Experiment(
    model=str(converted),
    weights=converted,
    data=str(photos),
    val_fraction=0.2,
    train_limit=300,
    eval_limit=300,
    freeze_epochs=1,
    epochs=8,
    batch_size=16,
    optimizer="adam",
    learning_rate=1e-3,
).override(resize=112, crop="random", flip=0.5)
summary = keras_alexnet.run_experiment(experiment, output=folder / "tuned")

# %%
tuned = keras_alexnet.read_run(folder / "tuned")
keras_alexnet.learning_curves(tuned.rows)

# %% [markdown]
# ## Evaluation and prediction
#
# `best.keras` knows its classes and what to do with images.

# %%
evaluation = tuned.evaluation
part = evaluation["part"]
print(f"{evaluation['top1']:.1%} of {evaluation['images']} {part} images are right")
keras_alexnet.confusion_matrix(evaluation["confusion"], evaluation["classes"])

# %%
from IPython.display import Image as Picture

Picture(folder / "tuned" / "predictions.png")

# %%
best = folder / "tuned" / "best.keras"
examples = data.test or data.train
run("keras_alexnet", "predict", best, *examples.paths[:3], "--top", 2)

# %% [markdown]
# The weights go back to torch, for `load_state_dict(strict=True)` of a `resnet18` with as many
# classes:

# %%
run("porting", "export", best, "--output", folder / "tuned.pth")
