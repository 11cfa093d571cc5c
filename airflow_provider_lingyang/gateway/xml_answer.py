"""Read the platform's XML: a gateway, or a proxy before it, may answer in it although JSON was requested. Pure.

The form is that of the API page's XML examples: everything is text, a list is an element around its items. An
attribute, which they do not have but for ``list="true"``, is read as a member of its element.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import ParseError, XMLParser

from airflow_provider_lingyang.gateway.json_answer import DuplicateKeyError

_MAX_DEPTH = 32
"""The API page's answer has a depth of 6."""


def parse_xml(body: bytes) -> dict[str, Any]:
    """Return an XML document as JSON would have it: element name → text, None, dict, or list of a repeated name.

    :raises DuplicateKeyError: an element has a child and an attribute of one name, with different values.
    :raises ValueError: it is not well-formed, has a document type (which could declare entities), or is
        nested too deeply.
    """
    builder = _Builder()
    parser = XMLParser(target=builder)
    try:
        parser.feed(body)
        parser.close()
    except (ParseError, LookupError):
        # from None: their text may quote the document.
        raise ValueError("not XML that can be read") from None
    return builder.document


class _Builder:
    """Takes the parser's events. Without recursion, so that no depth can hurt."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self._open = [self.document]
        self._attributes: list[dict[str, str]] = []
        self._text: list[str] = []

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type")

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if len(self._open) > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        self._open.append({})
        # Those of a namespace are about the document, not about the answer.
        self._attributes.append(
            {name: value for name, value in attrs.items() if name != "list" and not name.startswith("{")}
        )
        self._text.clear()

    def data(self, text: str) -> None:
        self._text.append(text)

    def end(self, tag: str) -> None:
        children, attributes = self._open.pop(), self._attributes.pop()
        text = "".join(self._text).strip()
        value: Any = None if children else text or None
        if attributes and text and not children:
            # Whether the text or the attributes count is undocumented.
            raise ValueError("attributes of a text")
        if any(children.get(name, value) != value for name, value in attributes.items()):
            raise DuplicateKeyError
        if children or attributes:
            value = attributes | children
        # Text between two elements is the parent's, and only layout.
        self._text.clear()
        siblings = self._open[-1]
        if tag not in siblings:
            siblings[tag] = value
        elif isinstance(siblings[tag], list):
            siblings[tag].append(value)
        else:
            siblings[tag] = [siblings[tag], value]
