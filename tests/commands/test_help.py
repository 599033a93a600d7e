"""What the command lines say of themselves, and the shell's completion."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from helpers.project import ROOT

from keras_alexnet.commands.train import PANELS, train
from keras_alexnet.training.experiment import option_fields

Run = Callable[..., tuple[int, str, str]]
PROGRAM = """
import sys
sys.argv = ["keras-alexnet"]
from keras_alexnet.commands.app import main
main()
"""


def test_every_option_of_explain_stands_below_one_heading(
    run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = run_cli("explain", "--help")
    assert code == 0
    assert _options_by_heading(out) == {
        "Options": ["help"],
        "Page": ["output", "method", "class", "backend"],
        "Grad-CAM and maps": ["layer"],
        "Integrated gradients": ["steps"],
        "Occlusion": ["window", "stride"],
        "Nearest photos": ["among", "neighbours"],
    }


def _options_by_heading(text: str) -> dict[str, list[str]]:
    return {
        title: options
        for title, lines in re.findall(r"╭─ ([\w -]+?) ─+╮\n(.*?)╰─", text, re.S)
        if (options := re.findall(r"^│ [* ]{0,3}--([\w-]+)", lines, re.M))
    }


def test_every_option_of_train_stands_below_one_heading(
    run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [name for names in PANELS.values() for name in names]
    own = {name for name in inspect.signature(train).parameters if name != "overrides"}
    assert len(set(listed)) == len(listed)
    assert set(listed) == own | {field.name for field in option_fields()}
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = run_cli("train", "--help")
    assert code == 0
    shown = _options_by_heading(out)
    assert [*shown] == ["Options", *PANELS]
    for title, names in PANELS.items():
        assert shown[title] == [name.replace("_", "-") for name in names]


def test_the_shell_completes_commands_and_choices() -> None:
    def completed(words: str) -> list[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_KERAS_ALEXNET_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert completed("keras-alexnet e") == ["evaluate", "explain", "export"]
    assert completed("keras-alexnet train --optimizer ") == [
        *("sgd", "adam", "adamw", "lars", "lamb")
    ]
