"""Write the table of `keras-alexnet models` into the README."""

from readme import replace_between

from keras_alexnet.commands.models import model_sheet
from keras_alexnet.core.tables import markdown

BEGIN, END = "<!-- models table: make models-table -->", "<!-- end of models table -->"


def main() -> None:
    """Replace the table between the README's markers."""
    replace_between(BEGIN, END, markdown(model_sheet()))


if __name__ == "__main__":
    main()
