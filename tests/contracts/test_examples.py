"""The examples in the docstrings of public functions."""

import doctest
import inspect

import pytest

import keras_alexnet
import porting

PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (keras_alexnet, porting)
    for name in package.__all__
}
EXAMPLES = [name for name, found in PUBLIC.items() if ">>>" in (found.__doc__ or "")]
# Shown in the README, but an example would download, need a picture, or take minutes.
WITHOUT = {"porting.from_torchvision"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    function = PUBLIC[name]
    module = inspect.getmodule(function)
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    (test,) = finder.find(function, function.__name__, module, vars(module).copy())
    report: list[str] = []
    assert runner.run(test, out=report.append).failed == 0, "".join(report)


def test_functions_of_the_readme_have_one() -> None:
    shown = {f"keras_alexnet.{n}" for n in ("AlexNet", "create_model", "feature_extractor")}
    shown |= {f"keras_alexnet.{n}" for n in ("list_models", "load_images", "optimize")}
    shown |= {f"porting.{n}" for n in ("load_state_dict", "to_state_dict", "convert")}
    shown |= {"porting.build_torch", "porting.from_torchvision"}
    assert shown - set(EXAMPLES) == WITHOUT
