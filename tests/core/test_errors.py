"""What is said of errors of other libraries."""

import pytest

from keras_alexnet.errors import one_line


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "ValueError"),
        ("\n  no such layer \n  Arguments: x=3", "no such layer"),
        ("\x1b[1mred\x1b[0m", "red"),
        ("Graph execution error:", "Graph execution error:"),
        (
            "Graph execution error:\n\nDetected at node c\n  File a.py\n\nno NCHW here\n"
            "\t [[{{node c/Conv2D}}]] [Op:__inference]",
            "Graph execution error: no NCHW here",
        ),
    ],
)
def test_one_line_says_what_happened(message: str, said: str) -> None:
    assert one_line(ValueError(message)) == said


def test_a_long_line_is_cut() -> None:
    text = one_line(ValueError("x" * 10_000), named=True)
    assert text.startswith("ValueError: xxx")
    assert text.endswith("...")
    assert len(text) < 1000
