"""Build the wheel, and try it in fresh environments that have one framework each.

    python tests/smoke.py [torch] [tensorflow] [jax]

Each environment gets the wheel with the extra of that name, and nothing of this checkout. There a
model is built, saved, loaded by plain Keras, and predicts; weights are converted and brought back.
Takes minutes and gigabytes.
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("torch", "tensorflow", "jax")
MEMBERS = (
    "keras_alexnet/__init__.pyi",
    "keras_alexnet/core/base.html.j2",
    "keras_alexnet/py.typed",
    "keras_alexnet/training/runs/report.html.j2",
    "porting/__init__.pyi",
    "porting/py.typed",
    "porting/checks/report.html.j2",
)
SCENARIO = """
import importlib.util, subprocess, sys
from pathlib import Path
import numpy as np
import keras_alexnet, porting

backend = sys.argv[1]
others = {"torch", "tensorflow", "jax"} - {backend}
present = sorted(name for name in others if importlib.util.find_spec(name))
assert not present, f"{present} are installed too"
assert "site-packages" in keras_alexnet.__file__, keras_alexnet.__file__

model = keras_alexnet.create_model("lenet5", classes=4, include_preprocessing=True)
import keras
assert keras.backend.backend() == backend
images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
logits = model.predict(images, verbose=0)
keras_alexnet.save_model(model, "built.keras", {"model": {"name": "lenet5"}})
again = keras.saving.load_model("built.keras").predict(images, verbose=0)
np.testing.assert_allclose(again, logits, rtol=1e-5, atol=1e-6)

porting.write_checkpoint("weights.npz", porting.to_state_dict(model, framework="numpy"))
for command in (
    ["keras_alexnet", "summary", "lenet5"],
    ["porting", "inspect", "weights.npz"],
    ["porting", "convert", "lenet5", "--source", "weights.npz", "--output", "converted.keras",
     "--preprocessing"],
    ["porting", "export", "converted.keras", "--output", "back.npz"],
    ["porting", "diff", "weights.npz", "back.npz"],
):
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
converted = keras_alexnet.load_model("converted.keras").predict(images, verbose=0)
np.testing.assert_allclose(converted, logits, rtol=1e-5, atol=1e-6)
from PIL import Image
Image.fromarray(images[0, :, :, 0]).save("digit.png")
subprocess.run([sys.executable, "-m", "keras_alexnet", "predict", "converted.keras", "digit.png"],
               check=True)
print(f"{backend}: built, saved, loaded, converted, predicted with Keras {keras.__version__}")
"""


def build(folder: Path) -> Path:
    """Build the wheel and check what is in it."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    missing = [name for name in MEMBERS if name not in names]
    strangers = [name for name in names if name.startswith(("tests/", "benchmarks/", "examples/"))]
    if missing or strangers:
        sys.exit(f"{wheel.name}: it lacks {missing}, and {strangers} do not belong into it")
    return wheel


def try_backend(wheel: Path, backend: str, folder: Path) -> None:
    """Install the wheel with one framework into an environment of its own, and use it there."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{wheel}[{backend}]"], check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "KERAS_BACKEND")}
    # What Keras' own configuration names is not installed here.
    environment |= {"KERAS_HOME": str(folder)}
    command = [str(python), "-c", SCENARIO, backend]
    subprocess.run(command, check=True, cwd=folder, env=environment)


def main() -> None:
    """Try the backends that are named, or all."""
    with tempfile.TemporaryDirectory(prefix="smoke-") as name:
        wheel = build(Path(name))
        for backend in sys.argv[1:] or BACKENDS:
            with tempfile.TemporaryDirectory(prefix=f"smoke-{backend}-") as folder:
                try_backend(wheel, backend, Path(folder))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {' '.join(map(str, error.cmd[:6]))} ... (exit code {error.returncode})")
