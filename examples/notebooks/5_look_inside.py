# %% [markdown]
# # Look inside: filters, Grad-CAM, neighbours
#
# What a network's guesses rest on: the kernels that it has learned, where in a photo its maps speak
# for a class, which pixels count, and which photos it takes for alike.
#
# * **Time**: half a minute on two cores.
# * **Data**: the network of the file that the environment variable `MODEL` names, on the photos of
#   the folder `PHOTOS`, or on scikit-learn's two. Without `MODEL`, LeNet-5 learns scikit-learn's
#   digits first, which are embedded.
# * **Needs**: `pip install 'keras-alexnet[torch,train]'`. Any backend will do that `KERAS_BACKEND`
#   names; torch compiles nothing, which would take longer than this.

# %%
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

import keras_alexnet

model = os.environ.get("MODEL")
if model is None:
    folder = Path("runs", f"look-inside-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    experiment = keras_alexnet.find_preset("digits-lenet5").experiment.override(epochs=15)
    keras_alexnet.run_experiment(experiment, output=folder, preset="digits-lenet5")
    model = folder / "best.keras"

explainer = keras_alexnet.Explainer.from_file(model)

# %% [markdown]
# ## Photos, as the network sees them

# %%
preprocessing = explainer.predictor.preprocessing
if "MODEL" not in os.environ:
    digits = keras_alexnet.find_data("digits").test
    others = digits.images.repeat(3, axis=-1)  # as R, G, B: (N, 8, 8, 3)
    originals = [others[(digits.labels == label).argmax()] for label in range(10)]
elif "PHOTOS" in os.environ:
    files = sorted(Path(os.environ["PHOTOS"]).iterdir())
    others = keras_alexnet.load_images(files[:200], preprocessing)
    originals = list(others[:4])
else:
    from sklearn.datasets import load_sample_images

    originals = others = load_sample_images().images

photos = np.stack([keras_alexnet.resize_and_crop(each, preprocessing) for each in originals])
classes = explainer.guesses(photos)
names = [explainer.class_name(index) for index in classes]
keras_alexnet.example_grid(list(photos), names)

# %% [markdown]
# ## The first filters
#
# Grey is 0; each kernel has its full contrast.

# %%
kernels = explainer.filters()[:20]  # (filters, h, w, C) in [0, 1]
keras_alexnet.example_grid(
    [(255 * kernel).astype(np.uint8) for kernel in kernels], [str(n) for n in range(len(kernels))]
)

# %% [markdown]
# ## Grad-CAM
#
# Where the last maps speak for the guessed class, from blue, nothing, to red. The second picture
# of each pair is what integrated gradients say: pixels that add to the class's score are red, those
# that take from it are blue.

# %%
heat = explainer.grad_cam(photos, classes)  # (N, rows, columns)
parts = explainer.integrated_gradients(photos, classes)  # (N, h, w, C)
keras_alexnet.example_grid(
    [keras_alexnet.heat_overlay(*pair) for pair in zip(photos, heat, strict=True)],
    names,
    seen=[
        keras_alexnet.signed_overlay(photo, part.sum(axis=-1))
        for photo, part in zip(photos, parts, strict=True)
    ],
)

# %% [markdown]
# All pixels together add what the score of the photo has more than that of a black one:

# %%
black = explainer.scores(np.zeros_like(photos[:1]))[0]
for name, index, part, scores in zip(names, classes, parts, explainer.scores(photos), strict=True):
    print(f"{name}: the pixels add {part.sum():.2f} of {scores[index] - black[index]:.2f}")

# %% [markdown]
# Two heads of a photo side by side: what speaks for the guess, and what for the second one.

# %%
best = np.argsort(-explainer.probabilities(photos[:1])[0])[:2]
twice = np.repeat(photos[:1], 2, axis=0)
keras_alexnet.example_grid(
    [keras_alexnet.heat_overlay(photos[0], each) for each in explainer.grad_cam(twice, best)],
    [explainer.class_name(index) for index in best],
)

# %% [markdown]
# ## The nearest photos
#
# By the Euclidean distance of what the classifier reads, as in figure 4 of Krizhevsky et al. 2012:
# a photo, and the six that are nearest to it.

# %%
crowd = np.stack([keras_alexnet.resize_and_crop(each, preprocessing) for each in others])
features, own = explainer.features(crowd), explainer.features(photos[:1])
distances = np.linalg.norm(features - own, axis=1)
nearest = np.argsort(distances)[:7]  # the photo itself comes first
keras_alexnet.example_grid(
    list(crowd[nearest]), [f"distance {distance:.2f}" for distance in distances[nearest]]
)

# %% [markdown]
# The same for photos of your own, as one page:
#
# ```
# keras-alexnet explain mine.keras photo.jpg --among photos/ --output page.html
# ```
