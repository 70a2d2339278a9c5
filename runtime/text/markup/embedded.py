"""HTML in Markdown: how CommonMark 0.31 tells it from text."""

from __future__ import annotations

import re

#: How blocks begin that end with a sign of their own, and that sign.
SIGNED = (
    (
        re.compile(r"<(?:script|pre|style|textarea)(?=[ \t>]|\Z)", re.I),
        re.compile(r"</(?:script|pre|style|textarea)>", re.I),
    ),
    (re.compile(r"<!--"), re.compile(r"-->")),
    (re.compile(r"<\?"), re.compile(r"\?>")),
    (re.compile(r"<![A-Za-z]"), re.compile(r">")),
    (re.compile(r"<!\[CDATA\["), re.compile(r"\]\]>")),
)
BLOCK = re.compile(
    r"</?(?:address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl|dt|"
    r"fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main|menu|"
    r"menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title|tr|track|"
    r"ul)(?=[ \t>]|/>|\Z)",
    re.IGNORECASE,
)
_ATTRIBUTES = r"(?:\s+[A-Za-z_:][A-Za-z0-9_.:-]*(?:\s*=\s*(?:[^\s\"'=<>`]+|'[^']*'|\"[^\"]*\"))?)*\s*"
#: A whole tag, as Markdown wants it.
TAG = re.compile(rf"<[A-Za-z][A-Za-z0-9-]*{_ATTRIBUTES}/?>|</[A-Za-z][A-Za-z0-9-]*\s*>")
TAG_ALONE = re.compile(rf"(?:{TAG.pattern})[ \t]*\Z")
