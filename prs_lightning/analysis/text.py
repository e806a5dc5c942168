"""Texts of others in the report: names of runs, reasons, config values are shown as they are, and are no markup."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from prs_lightning.errors import in_one_line, printable

MARKUP = re.compile(r"[\\`*|]|(?<!\w)_|_(?!\w)|\](?=[\[(:])")
"""What Markdown would take for its own; an underscore within a word and a bracket without a link are none of it."""


def in_html(value: object) -> object:
    """What stands for a value in the page, before it is escaped."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


def in_markdown(value: object) -> Markup:
    """A value in a paragraph or a cell of a table.

    >>> print(in_markdown("<script>|`x`\\n_a_b_ [it](http://it)"))
    &lt;script&gt;\\|\\`x\\` \\_a_b\\_ [it\\](http://it)
    """
    if isinstance(value, Markup):
        return value
    text = in_one_line(value) if str(value).strip() else str(value)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(MARKUP.sub(r"\\\g<0>", text))


def code_span(value: object) -> Markup:
    """A value as code within a line of Markdown, between more backticks than it has.

    >>> print(code_span("runs/a"), code_span("a`b"))
    `runs/a` `` a`b ``
    """
    text = in_one_line(value)
    marks = _more_backticks(text, 1)
    return Markup(f"{marks}{text}{marks}" if len(marks) == 1 else f"{marks} {text} {marks}")


def markdown_block(text: str) -> Markup:
    """Lines of YAML as a block of code that they cannot end."""
    marks = _more_backticks(text, 3)
    return Markup("{0}yaml\n{1}\n{0}").format(Markup(marks), Markup(_lines(text)))


def html_block(text: str) -> Markup:
    """Lines as they are, for what keeps its line breaks."""
    return escape(_lines(text) + "\n")


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.rstrip("\n").split("\n"))


def _more_backticks(text: str, least: int) -> str:
    return "`" * max(least, *(len(run) + 1 for run in re.findall("`+", text)), 0)
