"""Extensions of the reference: what griffe does not find in our code by itself."""

import ast
import re
from typing import Any

from griffe import Attribute, Expr, ExprCall, ExprName, Extension, Object


class OptionFields(Extension):
    """Shows fields of `core.fields.option(10, "Passes over ...")` with their default and text."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[tuple[Attribute, str | Expr]] = []

    def on_attribute_instance(self, *, attr: Attribute, **kwargs: Any) -> None:
        """Take the call of a field apart."""
        call = attr.value
        if isinstance(call, ExprCall) and call.canonical_path.endswith("core.fields.option"):
            attr.value, text = call.arguments[:2]
            self._texts.append((attr, text))

    def on_package(self, *, loader: Any, **kwargs: Any) -> None:
        """List the fields in their classes; some texts are constants of other modules."""
        for attr, text in self._texts:
            named = isinstance(text, ExprName)
            value = loader.modules_collection[text.canonical_path].value if named else text
            record = attr.parent.docstring
            if "\nAttributes:\n" not in record.value:
                record.value += "\n\nAttributes:"
            record.value += f"\n    {attr.name}: {ast.literal_eval(str(value))}"
        self._texts.clear()


class Examples(Extension):
    """Takes `Example:` for the section that griffe knows by its plural."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )
