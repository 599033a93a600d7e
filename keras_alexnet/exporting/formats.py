"""The formats that a model file can be exported to, as a declared table."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keras_alexnet.core.backend import installed, pip_line
from keras_alexnet.errors import ConfigurationError, MissingDependencyError


@dataclass(frozen=True)
class ExportFormat:
    """One format.

    Attributes:
        name: Its name on the command line.
        suffix: Suffix of its file; none where it is a folder.
        keras_name: Its name for Keras' `model.export`; none where that does not write it.
        backend: Keras backend that exports it.
        packages: Import names of what the export needs beside the backend.
        runtimes: Import names of what can run it, in order of preference; one is needed.
        companions: Suffixes of the files that belong to the first, beside it.
        positional: Whether its outputs are a list that this package names afterwards.
        quantizers: Import names that int8 needs beside the rest, or None where there is no int8.
        selective: Whether its int8 can spare operations by name.
        note: What its users must know.
        instead: What to try where a model cannot be exported to it.
    """

    name: str
    suffix: str
    keras_name: str | None
    backend: str
    runtimes: tuple[str, ...]
    packages: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    positional: bool = False
    quantizers: tuple[str, ...] | None = None
    selective: bool = False
    note: str | None = None
    instead: str = "try another --format"

    @property
    def is_folder(self) -> bool:
        """Whether an export is a folder."""
        return not self.suffix

    def members(self, path: Path) -> list[Path]:
        """Return the files, or the folder, that an export at `path` consists of."""
        return [path, *(path.with_suffix(suffix) for suffix in self.companions)]

    def runtime(self) -> str:
        """Return the import name of the runtime to use.

        Raises:
            MissingDependencyError: None is installed.
        """
        for package in self.runtimes:
            if installed(package):
                return package
        raise MissingDependencyError(self._lacking([self.runtimes[0]]))

    def require(self, *, int8: bool) -> None:
        """Check that everything an export needs is installed, without importing it.

        Raises:
            ConfigurationError: int8 is asked of a format that has none.
            MissingDependencyError: Something is missing; all of it is named.
        """
        if int8 and self.quantizers is None:
            able = " and ".join(f.name for f in FORMATS.values() if f.quantizers is not None)
            raise ConfigurationError(
                f"--quantize int8 is for {able}; {self.name} has none here. Leave --quantize out, "
                "or choose one of those formats"
            )
        needed = [self.backend, *self.packages, *((self.quantizers or ()) if int8 else ())]
        if not any(map(installed, self.runtimes)):
            needed.append(self.runtimes[0])
        missing = [package for package in needed if not installed(package)]
        if missing:
            raise MissingDependencyError(self._lacking(missing))

    def _lacking(self, missing: Iterable[str]) -> str:
        names = list(dict.fromkeys(missing))
        lines = " ".join(pip_line(name).removeprefix("pip install ") for name in names)
        return (
            f"exporting to {self.name} and checking the result needs {', '.join(names)}, not "
            f"installed here. Install with: pip install {lines}"
        )


FORMATS = {
    entry.name: entry
    for entry in (
        ExportFormat(
            "onnx",
            ".onnx",
            # Keras has the older of torch's two exporters write files for any batch, which lacks
            # layer norm, and pooling to a size that does not divide the map's. Through TensorFlow,
            # tf2onnx makes the constants of Normalization layers inputs of the graph, and takes up
            # to twenty times as long.
            None,
            backend="torch",
            packages=("onnx", "onnxscript"),
            runtimes=("onnxruntime",),
            positional=True,
            instead="try --format openvino",
        ),
        ExportFormat(
            "saved_model", "", "tf_saved_model", backend="tensorflow", runtimes=("tensorflow",)
        ),
        ExportFormat(
            "tflite",
            ".tflite",
            "litert",
            backend="tensorflow",
            runtimes=("ai_edge_litert", "tensorflow"),
            quantizers=(),
            note="for other batch sizes than 1, runtimes call resize_tensor_input",
        ),
        ExportFormat(
            "openvino",
            ".xml",
            "openvino",
            # On torch, Keras traces with torch.jit.trace, which refuses grouped convolutions.
            backend="tensorflow",
            packages=("openvino",),
            runtimes=("openvino",),
            companions=(".bin",),
            positional=True,
            quantizers=("nncf",),
            selective=True,
            note="set INFERENCE_PRECISION_HINT to f32 where it matters: OpenVINO rounds to "
            "bfloat16 on processors that have it",
        ),
        ExportFormat(
            "torch",
            ".pt2",
            "torch",
            backend="torch",
            runtimes=("torch",),
            note="run with torch.export.load(FILE).module()",
        ),
    )
}


def find_format(name: str) -> ExportFormat:
    """Return a format by name.

    Raises:
        ConfigurationError: There is no such format.
    """
    if name not in FORMATS:
        raise ConfigurationError(f"unknown format {name!r}; there are {', '.join(FORMATS)}")
    return FORMATS[name]


def output_path(format_: ExportFormat, model: Path, output: Path | None) -> Path:
    """Return where an export goes: `output`, or beside the model under its name.

    Raises:
        ConfigurationError: The suffix is not the format's.
    """
    if output is None:
        return model.with_suffix(format_.suffix)
    if output.suffix != format_.suffix and not format_.is_folder:
        raise ConfigurationError(
            f"{output}: the suffix of {format_.name} is {format_.suffix}; name the output "
            f"{output.with_suffix(format_.suffix).name}"
        )
    if format_.is_folder and output.suffix in {".keras", *(f.suffix for f in FORMATS.values())} - {
        ""
    }:
        raise ConfigurationError(
            f"{output}: {format_.name} is a folder, whose name has no suffix of a file; name the "
            f"output {output.stem}"
        )
    return output
