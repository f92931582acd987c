# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import codecs
import time

import pytest

from ansible_collections.acrn.ivshmem.plugins.module_utils._region import IvshmemError
from ansible_collections.acrn.ivshmem.plugins.module_utils._xml import Document
from ansible_collections.acrn.ivshmem.tests.unit.plugins.module_utils import scenarios

TRICKY = """<?xml version="1.0"?>
<!-- <a> --><?pi <a> ?>
<root one='"' two="'>" three="a/">
\t<empty/><pair></pair><spaced  /><closed ></closed >
  <slash at="x/"></slash><slash at="x/"/>
  <text>&lt;a&gt; &#65;<!-- no -->B<![CDATA[<c/> & ]]>]]&gt;<?p ?></text>
  <cdata><![CDATA[]]><![CDATA[x]]></cdata><n:s xmlns:n="u">\u00e4\u20ac\U0001f600</n:s>
  <deep><deep><deep/></deep>tail</deep>
</root>
<!-- after -->"""


def shape(node):
    """A tree as nested tuples, of our nodes or of lxml's elements."""
    if hasattr(node, "nsmap"):
        children = [child for child in node if isinstance(child.tag, str)]
        tag = f"{node.prefix}:{node.tag.split('}')[1]}" if node.prefix else node.tag
        text = (node.text or "") + "".join(child.tail or "" for child in node)
        return tag, text, [shape(child) for child in children]
    return node.tag, node.text, [shape(child) for child in node.children]


def check_against_lxml(data):
    etree = pytest.importorskip("lxml.etree")
    document = Document(data, "f")
    assert document.encode(document.source) == data
    # CDATA sections count as text, comments and processing instructions do not.
    tree = etree.fromstring(data, etree.XMLParser(strip_cdata=True, resolve_entities=False))
    assert shape(document.root) == shape(tree)
    for node in document.root.walk():
        raw = document.raw(node)
        assert raw.startswith(b"<" + node.tag.encode()), raw
        assert raw.endswith((b"/>", b">")), raw
        if not node.self_closing:
            assert document.source[node.body - 1 : node.body] == b">"
            assert document.source[node.body_end : node.end].startswith(b"</" + node.tag.encode())
        # Cut out, each element still is the same element.
        if b"n:" not in raw:
            assert shape(Document(raw, "f").root) == shape(node)


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_offsets_are_those_of_the_elements(eol):
    check_against_lxml(TRICKY.replace("\n", eol).encode())


@pytest.mark.parametrize(("path", "_dialect"), scenarios.real_files() or [pytest.param(None, "", id="none")])
def test_offsets_in_files_of_acrn(path, _dialect):
    if path is None:
        pytest.skip(f"no reference data in {scenarios.SHARED}")
    check_against_lxml(path.read_bytes())


ENCODED = [
    (b"", "utf-8", ""),
    (b"", "utf-8", "utf-8"),
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
    (b"", "utf-16-le", "UTF-16LE"),
    (b"", "utf-16-be", "UTF-16BE"),
    (b"", "latin-1", "ISO-8859-1"),
    (b"", "cp1252", "windows-1252"),
    (b"", "ascii", "US-ASCII"),
]


@pytest.mark.parametrize(("bom", "encoding", "declared"), ENCODED)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_encodings(bom, encoding, declared, quote):
    text = "zz" if encoding == "ascii" else "\u00e4\u00fc"
    name = f" encoding = {quote}{declared}{quote}" if declared else ""
    data = bom + f"<?xml version='1.0'{name}?>\r\n<r><a>{text}</a></r>".encode(encoding)
    document = Document(data, "f")
    assert document.root.value("a") == text
    new = document.replaced(document.root.children[0], document.with_text(document.root.children[0], "o<"))
    assert document.encode(new) == data.replace(text.encode(encoding), "o&lt;".encode(encoding))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "well-formed"),
        (codecs.BOM_UTF8, "well-formed"),
        (b"\0" * 100, "bytes of zero"),
        (b"<r>\0</r>", "bytes of zero"),
        (b"a" * 2000000 + b".xm", "well-formed"),
        (b" " * 2000000 + b"a.xml\t\t", "symbolic link"),
        (b"<r/>" + b" " * (4 << 20), "larger than 4 MB"),
        (b"<r>" + b"<a/>" * 50000 + b"</r>", "more than 50000 elements"),
        (b"<r>" + b"<a/>" * 1000000 + b"</r>", "more than 50000 elements"),
        (b"<r>\n" + b"<a>" * 290000, "line 2: .* inside of each other"),
        (b"<r " + b" ".join(b"a%d=''" % n for n in range(200000)) + b"/>", "attributes at one"),
        (b'<?xml version="1.0" encoding="idna"?><r/>', "save it as UTF-8|encoding 'idna'"),
        (b'<?xml version="1.0" encoding="punycode"?><r/>', "save it as UTF-8|encoding 'punycode'"),
        (b'<?xml version="1.0" encoding="raw_unicode_escape"?><r a="\\u0041"/>', "save it as UTF-8"),
        (b'<?xml version="1.0" encoding="hz"?><r/>', "save it as UTF-8"),
        (b"<r>", "well-formed"),
        (b"<r></q>", "well-formed"),
        (b"<r/><r/>", "well-formed"),
        (b"<r>&nbsp;</r>", "well-formed"),
        (b"../shared.xml", "well-formed"),
        (TRICKY.encode()[:200], "well-formed"),
        (b'<?xml version="1.0" encoding="utf-8"?><r>\xe4</r>', "encoding 'utf-8'"),
        (b"<r>\xe4</r>", "encoding 'utf-8'"),
        (b'<?xml version="1.0" encoding="klingon"?><r/>', "'klingon' is unknown"),
        (b'<?xml version="1.0" encoding="utf-16"?><r/>', "save it as UTF-8|encoding 'utf-16'"),
        (b'<?xml version="1.0" encoding="rot13"?><r/>', "unknown"),
        (b'<?xml version="1.0" encoding="base64"?><r/>', "unknown"),
        (b'<?xml version="1.0" encoding="unicode_escape"?><r>\\ud800</r>', "encoding 'unicode_escape'"),
        (b'<?xml version="1.0" encoding="utf-7"?><r>+2AA-</r>', "encoding 'utf-7'"),
        (codecs.BOM_UTF16_LE + b"<\0r", "encoding 'utf-16-le'"),
        (b"<!DOCTYPE r><r/>", "DOCTYPE"),
        (b'<!DOCTYPE r SYSTEM "file:///etc/passwd"><r/>', "DOCTYPE"),
        (b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><r>&b;</r>', "DOCTYPE"),
    ],
)
def test_what_is_refused(data, words):
    with pytest.raises(IvshmemError, match=f"^f: .*({words})"):
        Document(data, "f")


def test_anything_is_a_document_or_an_ivshmem_error():
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    whole = [b"<r>", b"</r>", b"<r/>", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"&lt;", b'<r a="', b"<!DOCTYPE r"]
    starts = [b'<?xml version="1.0"', b' encoding="utf-16"', b"?>", b"\xff\xfe", b"\xef\xbb\xbf", b"\0"]
    pieces = st.sampled_from(whole + starts) | st.binary(max_size=5)
    messes = st.lists(pieces, max_size=10).map(b"".join)

    @hypothesis.given(messes)
    def check(data):
        try:
            document = Document(data, "f")
        except IvshmemError:
            return
        assert document.encode(document.source) == data

    check()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [TRICKY[TRICKY.index("<!--") :], "<r/>", "<r a='\u4e2d'>\u4e2d</r>", "\n<r/>"])
def test_wide_encodings_have_to_say_so(encoding, text):
    # Expat guesses UTF-16 from the zero bytes, whatever it was told; what is written back would be half of each.
    with pytest.raises(IvshmemError, match=r"bytes of zero|encoding 'utf-8'|well-formed"):
        Document(text.encode(encoding), "f")
    bomb = '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><r>&b;</r>'
    for start in ("", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-16"?>'):
        with pytest.raises(IvshmemError):
            Document((start + bomb).encode(encoding), "f")


@pytest.mark.parametrize(
    "name", ["iso-8859-1", "iso-8859-15", "cp1252", "koi8-r", "shift_jis", "euc-jp", "gb18030", "big5"]
)
def test_encodings_that_are_declared(name):
    check_against_lxml(f'<?xml version="1.0" encoding="{name}"?><r a="\\~">x</r>'.encode(name))


def test_a_declaration_may_be_long():
    # Two letters to who takes it for Latin-1, as it says and as all others do, and one to who takes it for UTF-8.
    data = b'<?xml version="1.0"' + b" " * 3000 + b'encoding="ISO-8859-1"?><r>\xc3\xa4</r>'
    assert Document(data, "f").root.text == "\u00c3\u00a4"
    check_against_lxml(data)


def test_lines_are_counted_once():
    document = Document(b"<r>\n" + b"<a/>\n" * 40000 + b"</r>", "f")
    assert [document.line(node) for node in document.root.children] == list(range(2, 40002))


def test_nesting_of_any_depth():
    depth = 100
    document = Document(b"<a>" * depth + b"x" + b"</a>" * depth, "f")
    nodes = list(document.root.walk())
    assert len(nodes) == depth
    assert nodes[-1].text == "x"


def test_time_grows_with_the_size_alone():
    def cost(count):
        start = time.process_time()
        assert len(Document(b"<a>" + b"\n" * count + b"</a>", "f").root.text) == count
        return time.process_time() - start

    # Every line end is an event. Joined one by one, 16 times as many cost up to 256 times as much. How fast the machine
    # is does not count, and one of three pairs is enough: what is quadratic is so each time.
    assert min(cost(800_000) / cost(50_000) for _pair in range(3)) < 64


def edited(text, edit):
    document = Document(text.encode(), "f")
    node = document.root.children[0]
    return document.replaced(node, edit(document, node)).decode()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<r><a/></r>", "<r><a>n</a></r>"),
        ("<r><a /></r>", "<r><a>n</a></r>"),
        ("<r><a b='>'  /></r>", "<r><a b='>'>n</a></r>"),
        ("<r><a b='/'></a></r>", "<r><a b='/'>n</a></r>"),
        ("<r><a\n b='x'\n></a\n></r>", "<r><a\n b='x'\n>n</a\n></r>"),
        ("<r><a>o<!-- c --></a></r>", "<r><a>n</a></r>"),
        ("<r><a><!-- c -->o</a></r>", "<r><a>n</a></r>"),
        ("<r><a><?p i?></a></r>", "<r><a>n</a></r>"),
        ("<r><a><![CDATA[o]]></a>t</r>", "<r><a>n</a>t</r>"),
    ],
)
def test_new_text(text, wanted):
    assert edited(text, lambda document, node: document.with_text(node, "n")) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<r><a/></r>", "<r><a/></r>"),
        ("<r><a></a></r>", "<r><a/></r>"),
        ("<r><a>x</a ></r>", "<r><a/></r>"),
        ("<r><a b='/'>x</a></r>", "<r><a b='/'></a></r>"),
    ],
)
def test_emptied(text, wanted):
    assert edited(text, lambda document, node: document.emptied(node)) == wanted


def children(*tags):
    """An edit that keeps the children of these tags, in this order, and makes those that are not there."""

    def edit(document, node):
        pairs = []
        for tag in tags:
            child = node.first(tag)
            new = document.build(tag, "", document.child_indent(node), document.eol(node.start))
            pairs.append((child, document.raw(child) if child else new))
        return document.with_children(node, pairs)

    return edit


@pytest.mark.parametrize(
    ("text", "tags", "wanted"),
    [
        ("<r>\n  <b/>\n</r>", "x", "<r>\n  <b>\n    <x></x>\n  </b>\n</r>"),
        ("<r>\n\t<b></b>\n</r>", "x", "<r>\n\t<b>\n\t\t<x></x>\n\t</b>\n</r>"),
        ("<r>\r\n <b>\r\n </b>\r\n</r>", "xy", "<r>\r\n <b>\r\n  <x></x>\r\n  <y></y>\r\n </b>\r\n</r>"),
        ("<r><b/></r>", "x", "<r><b><x></x></b></r>"),
        ("<r>\n <b>\n   <x/>\n </b></r>", "xy", "<r>\n <b>\n   <x/>\n   <y></y>\n </b></r>"),
        ("<r>\n <b>\n  <x/>\n  <y/>\n </b>\n</r>", "yx", "<r>\n <b>\n  <y/>\n  <x/>\n </b>\n</r>"),
        ("<r>\n <b>\n  <x/>\n  <y/>\n </b>\n</r>", "y", "<r>\n <b>\n  <y/>\n </b>\n</r>"),
        ("<r>\n <b>\n  <x/>\n </b>\n</r>", "", "<r>\n <b/>\n</r>"),
        ("<r>\n <b>\n  <!-- k --><x/><!-- l -->\n </b>\n</r>", "", "<r>\n <b>\n  <!-- k --><!-- l -->\n </b>\n</r>"),
        ("<r>\n <b>\n  <!-- k -->\n  <x/>\n  <y/>\n </b>\n</r>", "y", "<r>\n <b>\n  <!-- k -->\n  <y/>\n </b>\n</r>"),
        ("<r>\n <b>\n  <?k ?>\n </b>\n</r>", "x", "<r>\n <b>\n  <x></x>\n  <?k ?>\n </b>\n</r>"),
    ],
)
def test_new_children(text, tags, wanted):
    assert edited(text, children(*tags)) == wanted


def test_line_ends_follow_the_neighbourhood():
    document = Document(b"<r>\n <a>\r\n  <b/>\r\n </a>\n <c/>\n</r>", "f")
    a, c = document.root.children
    assert document.eol(a.children[0].start) == b"\r\n"
    assert document.eol(c.start) == b"\n"
    assert document.line(c) == 5
