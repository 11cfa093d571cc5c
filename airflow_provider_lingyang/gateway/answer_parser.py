"""Parse the platform's JSON and XML, and find what is in there twice: libraries take the last in silence. Pure.

A gateway, or a proxy before it, may answer in XML although JSON was requested. Its form is that of the API page's XML
examples: everything is text, a list is an element around its items. An attribute, which they do not have but for
``list="true"``, is read as a member of its element.
"""

from __future__ import annotations

import json
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from pydantic_core import from_json, to_json

_MAX_BRACKETS = 250_000
"""Objects and lists in one answer: each takes 50 bytes and more of memory, and no answer needs half as many."""
_MAX_DEPTH = 32
"""Of XML. The API page's answer has a depth of 6."""


class DuplicateKeyError(ValueError):
    """An object holds a name twice, with different values: two readings are possible."""


def parse_answer(body: bytes) -> Any:
    """Return a document, from JSON or XML.

    :raises DuplicateKeyError: an object in it holds a name twice, with different values.
    :raises ValueError: it is neither, or too large.
    :raises RecursionError: it is nested too deeply.
    """
    if body[:64].lstrip().startswith(b"<"):
        if body.count(b"<") > 2 * _MAX_BRACKETS:
            raise ValueError("too many elements")
        return _parse_xml(body)
    if body.count(b"{") + body.count(b"[") > _MAX_BRACKETS:
        raise ValueError("too many objects and lists")
    return _parse_json(body)


def _parse_json(body: bytes) -> Any:
    try:
        # Together in half of the other's time. Of a name that was there twice, one is missing in the text.
        document = from_json(body, cache_strings="keys")
        if to_json(document) == body:
            return document
    except ValueError:
        pass
    return _DECODER.decode(body.decode())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) and any(_differ(found[name], value) for name, value in pairs):
        raise DuplicateKeyError
    return found


def _differ(one: Any, other: Any) -> bool:
    # 1 and true are equal to Python, and not the same answer.
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_object)


class _Tree(TreeBuilder):
    """Refuses a document type, which could declare entities, and deep nesting."""

    depth = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type")

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self.depth -= 1
        return super().end(tag)


def _parse_xml(body: bytes) -> dict[str, Any]:
    """Return an XML document as JSON would have it: element name → text, None, dict, or list of a repeated name."""
    parser = XMLParser(target=_Tree())
    try:
        parser.feed(body)
        root = parser.close()
    except (ParseError, LookupError):
        # from None: their text may quote the document.
        raise ValueError("not XML that can be read") from None
    return {root.tag: _value(root)}


def _value(element: Element) -> Any:
    children: dict[str, list[Any]] = {}
    for child in element:
        children.setdefault(child.tag, []).append(_value(child))
    # Those of a namespace are about the document, not about the answer.
    attributes = {
        name: value for name, value in element.items() if name != "list" and not name.startswith("{")
    }
    # Text beside elements is only layout.
    text = "" if children else (element.text or "").strip()
    if not (children or attributes):
        return text or None
    if text:
        # Whether the text or the attributes count is undocumented.
        raise ValueError("attributes of a text")
    members = {name: values if len(values) > 1 else values[0] for name, values in children.items()}
    if any(members.get(name, value) != value for name, value in attributes.items()):
        raise DuplicateKeyError
    return attributes | members
