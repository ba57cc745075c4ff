"""Text of strangers on its way into SVG, HTML, DOT and metrics: nothing in it may become markup.

And times and sizes for people.
"""

from __future__ import annotations

import html
from typing import Final

__all__ = ["ago", "dot_text", "metric_label", "shortened", "size", "words_for", "xml_text"]

_REPLACEMENT: Final = "\ufffd"
#: Why a path is what it is (`reason` of n2n.api.views), in words.
_WORDS: Final = {
    "discovered": "just discovered",
    "probing": "looking for a direct path",
    "answered": "it answered our ping",
    "silent": "it fell silent",
    "no_answer": "no ping was answered",
    "peer_changed": "its address changed",
    "network_changed": "our network changed",
    "woke_up": "this host slept",
    "better": "a nearer way was found",
    "quicker": "a quicker way was found",
    "idle": "no traffic for a while",
}


def xml_text(text: str) -> str:
    """`text` for SVG and HTML, between tags and in attributes in double quotes.

    >>> xml_text('<b a="1">&\\x00')
    '&lt;b a=&quot;1&quot;&gt;&amp;\\ufffd'
    """
    return html.escape("".join(char if _in_xml(char) else _REPLACEMENT for char in text))


def _in_xml(char: str) -> bool:
    """Char of XML 1.0, section 2.2."""
    return (
        char >= " " and not "\x7f" <= char <= "\x9f" and not "\ud800" <= char <= "\udfff" and char not in "\ufffe\uffff"
    )


def dot_text(text: str) -> str:
    """`text` as a quoted string of DOT; a backslash stays one, so that it begins no escape.

    >>> dot_text('a"\\\\N')
    '"a\\\\"\\\\\\\\N"'
    """
    kept = "".join(char if _in_xml(char) else _REPLACEMENT for char in text)
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'


def metric_label(text: str) -> str:
    """`text` as the value of a label in Prometheus' text format, with its quotes.

    >>> metric_label('a"b\\\\c\\nd')
    '"a\\\\"b\\\\\\\\c\\\\nd"'
    """
    kept = text.encode("utf-8", "replace").decode()
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def shortened(text: str, limit: int) -> str:
    """`text`, cut to `limit` characters with an ellipsis.

    >>> shortened("supernode", 6)
    'super…'
    """
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def words_for(reason: str) -> str:
    """Why a path is what it is, in words.

    >>> words_for("silent"), words_for("something_new"), words_for("")
    ('it fell silent', 'something new', '')
    """
    return _WORDS.get(reason, reason.replace("_", " "))


def ago(seconds: float) -> str:
    """How long ago something was, roughly.

    >>> ago(0.4), ago(75), ago(7300), ago(200000)
    ('now', '1 min', '2 h', '2 d')
    """
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def size(count: float) -> str:
    """A number of bytes.

    >>> size(999), size(1500), size(2_000_000_000)
    ('999 B', '1.5 kB', '2.0 GB')
    """
    value, unit = count, "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
