"""Write the table of `keras-alexnet models` into docs/index.md."""

from readme import DOCS, replace_between

from keras_alexnet.commands.models import model_sheet
from keras_alexnet.core.tables import markdown

BEGIN, END = "<!-- models table: make models-table -->", "<!-- end of models table -->"
DOCUMENT = DOCS / "index.md"


def main() -> None:
    """Replace the table between the page's markers."""
    replace_between(BEGIN, END, markdown(model_sheet()), DOCUMENT)


if __name__ == "__main__":
    main()
