# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XML that is edited by the byte: a document whose elements know where they stand in the file.

This module util is PRIVATE to the collection: it can change at any time.

A parser that writes the tree back (lxml, ElementTree) also rewrites what nobody asked it to touch: declaration,
quotes, line ends, character references. Here Expat only says where each element begins and ends; an edit replaces
a range of bytes, and everything outside that range is the same object in memory as before.
"""

from __future__ import annotations

import bisect
import codecs
import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Sequence, Tuple, Union
from xml.parsers import expat

from ansible_collections.acrn.ivshmem.plugins.module_utils._files import LARGEST, size_text
from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
Content = Union[str, Sequence[Tuple[str, "Content"]]]

# More than any file of ACRN has, and few enough to be read and edited in a moment.
MOST_ELEMENTS = 50000
MOST_ATTRIBUTES = 100
DEEPEST = 100
# Python's name of an encoding is good for XML if markup is in it what it is in ASCII: Expat is given UTF-8, and other
# readers must see the same elements.
_MARKUP = bytes(range(0x20, 0x7F)) + b"\t\r\n.xn--bcher-kva"
_WIDE = re.compile(r"utf-?(16|32)(-?[lb]e)?", re.IGNORECASE)

_DECLARED = re.compile(r"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']""")


def _markup_is_plain(encoding: str) -> bool:
    try:
        return bool(_WIDE.fullmatch(encoding)) or _MARKUP.decode(encoding) == _MARKUP.decode("ascii")
    except UnicodeError:
        return False


@dataclass(eq=False)
class Node:
    """One element. ``start``..``end`` is all of it, ``body``..``body_end`` what stands between its tags.

    Offsets are into ``Document.source``. For ``<TAG/>`` the body is empty and begins and ends at ``end``.
    ``text`` is the character data directly inside, references resolved, comments left out.
    """

    tag: str
    attributes: dict[str, str]
    start: int
    body: int = -1
    body_end: int = -1
    end: int = -1
    text: str = ""
    children: list[Node] = field(default_factory=list)

    @property
    def self_closing(self) -> bool:
        return self.body == self.end

    def all(self, path: str) -> list[Node]:
        """The elements under this one at a path of tags such as ``hv/FEATURES``, in file order."""
        found = [self]
        for tag in path.split("/"):
            found = [child for node in found for child in node.children if child.tag == tag]
        return found

    def first(self, path: str) -> Node | None:
        """The first element at a path, or None."""
        found = self.all(path)
        return found[0] if found else None

    def value(self, path: str) -> str:
        """The text of the first element at a path, without white space around it; empty where there is none."""
        node = self.first(path)
        return node.text.strip() if node else ""

    def walk(self) -> Iterator[Node]:
        """This element and all below it, in file order."""
        # Without recursion, for a hostile file may nest deeper than Python does.
        ahead = [self]
        while ahead:
            node = ahead.pop()
            yield node
            ahead += reversed(node.children)


class Document:
    """A parsed file. ``source`` is its text as UTF-8 bytes, whatever the encoding of the file is."""

    def __init__(self, data: bytes, where: str) -> None:
        """Parse the bytes of a file; ``where`` names it in messages.

        Raises IvshmemError where the bytes are no well-formed XML, are not in the encoding that they declare, are
        larger or deeper than any file of ACRN, or hold a document type declaration (no ACRN file has one, and
        entities are how XML files attack parsers).
        """
        self.where = where
        if len(data) > LARGEST:
            raise IvshmemError(f"{where}: larger than {size_text(LARGEST)}, which no XML file of ACRN is")
        self.bom, self.encoding = b"", "utf-8"
        self.source = self._decode(data)
        self._lines: list[int] = []
        self.root = self._parse()

    def _decode(self, data: bytes) -> bytes:
        for bom, encoding in _BOMS:
            if data.startswith(bom):
                self.bom, self.encoding = bom, encoding
                break
        else:
            if data[:4] == b"<\0?\0":
                self.encoding = "utf-16-le"
            elif data[:4] == b"\0<\0?":
                self.encoding = "utf-16-be"
        if not self.bom and self.encoding == "utf-8":
            match = _DECLARED.match(data.partition(b"?>")[0].decode("latin-1"))
            self.encoding = match.group(1) if match else "utf-8"
        body = data[len(self.bom) :]
        try:
            text = body.decode(self.encoding)
            same = text.encode(self.encoding) == body
            source = text.encode("utf-8")
        except LookupError:
            raise IvshmemError(f"{self.where}: its encoding '{self.encoding}' is unknown; save it as UTF-8") from None
        except UnicodeError as exc:
            raise IvshmemError(
                f"{self.where}: is not in the encoding '{self.encoding}' that it is declared in ({exc}); "
                "correct the declaration or the bytes"
            ) from None
        if not same or not _markup_is_plain(self.encoding):
            raise IvshmemError(
                f"{self.where}: cannot be read in '{self.encoding}' and written back the same; save it as UTF-8"
            )
        if b"\0" in source:
            # Expat would guess UTF-16 and go on.
            raise IvshmemError(
                f"{self.where}: has bytes of zero, which XML cannot have: it is UTF-16 or UTF-32 that does not say so, "
                "or no text; save it as UTF-8"
            )
        return source

    def encode(self, source: bytes) -> bytes:
        """The bytes for the file, in its own encoding and with its byte order mark."""
        try:
            return self.bom + source.decode("utf-8").encode(self.encoding)
        except UnicodeEncodeError as exc:
            raise IvshmemError(
                f"{self.where}: {exc.object[exc.start : exc.end]!r} cannot be written in its encoding {self.encoding}"
            ) from None

    def _parse(self) -> Node:
        parser = expat.ParserCreate("utf-8")
        top = Node("", {}, 0)
        stack = [top]
        # The end of a start tag is where the next event begins, so it is filled in one event late.
        opened: list[Node] = []
        texts: list[list[str]] = [[]]

        def settle() -> int:
            here = parser.CurrentByteIndex
            while opened:
                opened.pop().body = here
            return here

        count = 0

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal count
            count += 1
            if count > MOST_ELEMENTS or len(stack) > DEEPEST or len(attributes) > MOST_ATTRIBUTES:
                raise IvshmemError(
                    f"{self.where}: line {parser.CurrentLineNumber}: has more than {MOST_ELEMENTS} elements, "
                    f"{DEEPEST} inside of each other, or {MOST_ATTRIBUTES} attributes at one, which no file of ACRN has"
                )
            node = Node(tag, attributes, settle())
            stack[-1].children.append(node)
            stack.append(node)
            texts.append([])
            opened.append(node)

        def end(_tag: str) -> None:
            node = stack.pop()
            node.text = "".join(texts.pop())
            node.body_end = settle()
            # Expat reports the end of <TAG/> behind it, and that of <TAG></TAG> at its closing tag; a start tag that
            # is not self-closing cannot end in a slash.
            if node.body == node.body_end and self.source[node.body - 2 : node.body] == b"/>":
                node.end = node.body
            else:
                node.end = self.source.index(b">", node.body_end) + 1

        def characters(text: str) -> None:
            if opened:
                settle()
            texts[-1].append(text)

        def other(*_args: object) -> None:
            settle()

        def doctype(*_args: object) -> None:
            raise IvshmemError(
                f"{self.where}: has a document type declaration (DOCTYPE), which ACRN's files never have; remove it"
            )

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = characters
        parser.CommentHandler = other
        parser.ProcessingInstructionHandler = other
        parser.StartCdataSectionHandler = other
        parser.EndCdataSectionHandler = other
        parser.StartDoctypeDeclHandler = doctype
        try:
            parser.Parse(self.source, True)
        except expat.ExpatError as exc:
            # ACRN's trees have links among their files.
            link = self.source.strip()
            if link.endswith(b".xml") and not re.search(rb"[<\n\0]", link):
                path = link.decode("utf-8", "replace")
                raise IvshmemError(
                    f"{self.where}: holds only the path {path}: it is a symbolic link that was checked out as text "
                    "and no well-formed XML; give the file that it leads to, or make it a link again"
                ) from None
            raise IvshmemError(f"{self.where}: is not well-formed XML: {exc}") from None
        return top.children[0]

    def raw(self, node: Node) -> bytes:
        """The element as it stands in the file."""
        return self.source[node.start : node.end]

    def line(self, node: Node) -> int:
        """The line of the file on which an element begins, from 1."""
        if not self._lines:
            self._lines = [match.start() for match in re.finditer(b"\n", self.source)]
        return bisect.bisect_left(self._lines, node.start) + 1

    def eol(self, offset: int) -> bytes:
        """The line end in use around an offset: that of the line before, or else of the first line."""
        at = self.source.rfind(b"\n", 0, offset)
        if at < 0:
            at = self.source.find(b"\n")
        return b"\r\n" if at > 0 and self.source[at - 1 : at] == b"\r" else b"\n"

    def indent(self, node: Node) -> bytes | None:
        """The white space in front of an element on its line, or None where something else stands there."""
        begin = self.source.rfind(b"\n", 0, node.start) + 1
        lead = self.source[begin : node.start]
        return lead if begin and not lead.strip() else None

    def with_text(self, node: Node, text: str) -> bytes:
        """The element with other text in place of everything between its tags, which stay as they are."""
        head = self.source[node.start : node.body]
        value = html.escape(text, quote=False).encode("utf-8")
        if node.self_closing:
            return head[:-2].rstrip() + b">" + value + b"</" + node.tag.encode("utf-8") + b">"
        return head + value + self.source[node.body_end : node.end]

    def emptied(self, node: Node) -> bytes:
        """The element without content: ``<TAG/>``, or with its two tags kept where it has attributes."""
        if node.attributes and not node.self_closing:
            return self.source[node.start : node.body] + self.source[node.body_end : node.end]
        return self.source[node.start : node.body - 1].rstrip(b" \t\r\n/") + b"/>"

    def with_children(self, node: Node, wanted: Iterable[tuple[Node | None, bytes]]) -> bytes:
        """The element with these children, in this order: each a child of before or None, and its new bytes.

        A child that is left out goes, and so does the white space before it; comments stay. A new child gets a line
        of its own, indented like its siblings, where the file is indented at all.
        """
        pairs = list(wanted)
        before: dict[int, bytes] = {}
        at, orphaned = node.body, b""
        kept = {id(child) for child, _raw in pairs if child is not None}
        for child in node.children:
            lead = orphaned + self.source[at : child.start]
            if id(child) in kept:
                before[id(child)], orphaned = lead, b""
            else:
                orphaned = lead.rstrip() if lead.strip() else b""
            at = child.end
        tail = orphaned + (b"" if node.self_closing else self.source[at : node.body_end])
        if not pairs and not tail.strip():
            return self.emptied(node)
        fresh, last = b"", b""
        deeper = self.child_indent(node)
        if deeper is not None:
            eol = self.eol(node.start)
            fresh = eol + deeper
            last = b"" if tail.strip() or b"\n" in tail else eol + (self.indent(node) or b"")
        body = b"".join((before[id(child)] if child is not None else fresh) + raw for child, raw in pairs)
        head = self.source[node.start : node.body]
        if node.self_closing:
            return head[:-2].rstrip() + b">" + body + last + b"</" + node.tag.encode("utf-8") + b">"
        return head + body + tail + last + self.source[node.body_end : node.end]

    def child_indent(self, node: Node) -> bytes | None:
        """The white space in front of the children of an element, or None where the file is not indented there."""
        if node.children:
            return self.indent(node.children[0])
        own = self.indent(node)
        if own is None:
            return None
        return own + self._step()

    def build(self, tag: str, content: Content, indent: bytes | None, eol: bytes) -> bytes:
        """A new element that stands behind ``indent``, with text or with (tag, content) pairs as its children."""
        name = tag.encode("utf-8")
        if isinstance(content, str):
            return b"<" + name + b">" + html.escape(content, quote=False).encode("utf-8") + b"</" + name + b">"
        deeper = None if indent is None else indent + self._step()
        lead, last = (b"", b"") if indent is None or deeper is None else (eol + deeper, eol + indent)
        inner = b"".join(lead + self.build(child, value, deeper, eol) for child, value in content)
        return b"<" + name + b">" + inner + last + b"</" + name + b">"

    def _step(self) -> bytes:
        # One step of indentation is what the first indented child of the root shows.
        steps = (self.indent(child) for child in self.root.children)
        return next((step for step in steps if step), b"  ")

    def replaced(self, node: Node, raw: bytes) -> bytes:
        """The whole source with other bytes in place of one element."""
        return self.source[: node.start] + raw + self.source[node.end :]
