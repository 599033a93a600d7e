# %% [markdown]
# # Port your checkpoint, and prove it
#
# A network of your own in torch, with weights that were trained, becomes a `.keras` file that opens
# anywhere. `check` compares both sides layer by layer, and at the end the weights go back to torch,
# byte by byte.
#
# * **Time**: under a minute on two cores.
# * **Data**: scikit-learn's digits, which are embedded, and its two sample photos.
# * **Needs**: `pip install 'keras-alexnet[torch,report,train]'`.
#
# For a checkpoint that you have already, put your network into `net.py` and your file in the place
# of `mine.pth`.

# %%
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras beside torch, in one process

import numpy as np
import torch

import keras_alexnet
import porting

folder = Path("runs", f"port-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
folder.mkdir(parents=True)

# %% [markdown]
# ## A network in torch
#
# Any `torch.nn.Module` of images will do. This one has a residual block, batch norm and dropout.

# %%
code = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = Block(16)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(16 * 16 * 16, classes)

    def forward(self, x):  # (N, 3, 32, 32)
        x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 2)
        x = self.block(x)  # (N, 16, 16, 16)
        return self.fc(self.dropout(x.flatten(1)))


def build(classes=10):
    return Net(classes)
"""
(folder / "net.py").write_text(code)
sys.path.insert(0, str(folder))
from net import build

module = build()

# %% [markdown]
# ## Its training, in torch

# %%
digits = keras_alexnet.find_data("digits-rgb")


def tensors(part):
    """Return images (N, 3, 32, 32) in 0..1, and classes (N,)."""
    images = torch.from_numpy(part.images).permute(0, 3, 1, 2) / 255
    return images, torch.from_numpy(part.labels)


torch.manual_seed(0)
images, labels = tensors(digits.train)
optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
module.train()
for _epoch in range(3):
    for batch in torch.randperm(len(images)).split(64):
        loss = torch.nn.functional.cross_entropy(module(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
module.eval()
test_images, test_labels = tensors(digits.test)
with torch.inference_mode():
    wanted = module(test_images)
print(f"{(wanted.argmax(1) == test_labels).float().mean():.2%} of the test images are right")
torch.save(module.state_dict(), folder / "mine.pth")

# %% [markdown]
# ## Into Keras
#
# The file is written only if its logits are torch's. On the command line: `python -m porting
# convert net.py:build --source mine.pth --input-shape 3x32x32 --output mine.keras`.

# %%
network = f"{folder / 'net.py'}:build"
record = porting.convert(
    network, folder / "mine.pth", folder / "mine.keras", input_shapes=[(3, 32, 32)]
)
model = porting.load_model(folder / "mine.keras")
model.summary()

# %% [markdown]
# The same images through both. Keras has the channels last.

# %%
found = model.predict(test_images.permute(0, 2, 3, 1).numpy(), verbose=0)
gap = np.abs(found - wanted.numpy()).max() / wanted.abs().max().item()
print(f"largest difference of logits, relative to their scale: {gap:.1e}")

# %% [markdown]
# ## The proof
#
# `check` computes torch and each installed Keras backend in a process of its own, in both data
# formats, on noise and on photos, and compares the output of every module, every logit, and the
# gradient of every weight in float64. The table shows the largest difference of each, relative to
# the scale of what is compared.

# %%
result = porting.check(
    porting.CheckRequest(
        network,
        source=folder / "mine.pth",
        candidate=folder / "mine.keras",
        input_shapes=[(3, 32, 32)],
    ),
    folder,
)
result

# %%
page = porting.write_report(folder / "check.html", [result])
print(f"every layer, to be pointed at: {page}")
assert result.passed, result.verdict

# %% [markdown]
# ## Back to torch
#
# After training in Keras too: `export` gives what `load_state_dict(strict=True)` takes. Here
# nothing was trained in between, so every tensor must be what it was.

# %%
porting.export(folder / "mine.keras", folder / "back.pth")
before, after = (torch.load(folder / name) for name in ("mine.pth", "back.pth"))
assert before.keys() == after.keys()
for key, tensor in before.items():
    assert tensor.dtype == after[key].dtype, key
    assert tensor.numpy().tobytes() == after[key].numpy().tobytes(), key
print(build().load_state_dict(after, strict=True))
print(f"{len(after)} tensors, byte by byte the same")
