"""Sections as one self-contained HTML page: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from itertools import pairwise

from singleshot.analysis.figure import Figure
from singleshot.analysis.render.pictures import to_picture
from singleshot.analysis.section import Block, Image, Section, Table
from singleshot.errors import escaped
from singleshot.version import __version__

_DARK = "(prefers-color-scheme: dark)"
_NARROW = "(max-width: 44rem)"  # on narrower pages the panels of a figure stand one below the other
# The page may load nothing, so nobody can learn that it was opened.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """\
:root { color-scheme: light dark; --page: #fff; --ink: #1c1e21; --soft: #5c636b; --line: #d9dde2; --band: #f5f7f9;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --ink: #e4e6e9; --soft: #a0a7af; --line: #363b41;
  --band: #1e2125; --accent: #6cbcec; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.5rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: 0.9rem 0; overflow-wrap: anywhere; white-space: pre-line; }
.about, footer, figcaption { color: var(--soft); font-size: 0.9rem; }
.about { margin-top: 0; }
a { color: var(--accent); }
nav ul { padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.32rem 0.55rem; text-align: left; font-weight: inherit; white-space: nowrap; }
thead th { font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody tr:nth-child(even) { background: var(--band); }
tr.total { font-weight: 600; border-top: 2px solid var(--line); }
.right { text-align: right; }
.divider, .group { border-left: 2px solid var(--line); }
thead th.group { border-bottom: 0; color: var(--soft); }
figure { margin: 1.6rem 0; }
.table { margin: 1.1rem 0; }
.table figcaption { padding-bottom: 0.4rem; }
img { display: block; max-width: 100%; height: auto; }
.next { border-left: 4px solid var(--accent); padding: 0.5rem 0.9rem; background: var(--band); }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 0.75rem; }
@media print { h2, figure, tr { break-inside: avoid; } .scroll { overflow: visible; } }
"""


def to_html(sections: Sequence[Section], *, title: str = "", about: str = "") -> str:
    """The page, as text.

    `title` is its heading, by default that of the first section. `about` is a line that says what was analysed. Two or
    more sections get a table of contents. Raises `UserError` for an image that is neither PNG nor JPEG.
    """
    title = title or sections[0].title
    several = len(sections) > 1
    parts = [f"<h1>{_safe(title)}</h1>"]
    if about:
        parts.append(f'<p class="about">{_safe(about)}</p>')
    if several:
        entries = [f'<li><a href="#part-{k}">{_safe(one.title)}</a></li>' for k, one in enumerate(sections, 1)]
        parts.append(f"<nav><ul>\n{_lines(entries)}\n</ul></nav>")
    for k, section in enumerate(sections, 1):
        heading = [f"<h2>{_safe(section.title)}</h2>"] if several or section.title != title else []
        parts.append(f'<section id="part-{k}">\n{_lines([*heading, *_body(section)])}\n</section>')
    parts.append(f"<footer>Written by singleshot {_safe(__version__)}.</footer>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{_safe(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{_lines(parts)}\n</main>\n</body>\n</html>\n"
    )


def _body(section: Section) -> list[str]:
    parts = [_block(block) for block in (section.lead, *section.blocks) if block]
    if section.next_step:
        parts.append(f'<p class="next"><strong>Next:</strong> {_safe(section.next_step)}</p>')
    return parts


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_safe(block)}</p>"
    if isinstance(block, Table):
        return _table(block)
    return _figure(block) if isinstance(block, Figure) else _image(block)


def _table(table: Table) -> str:
    right, heads, cells = table.right(), table.heads, table.cells()

    def classes(c: int) -> str:
        names = [name for name, on in (("right", right[c]), ("divider", bool(heads[c].group))) if on]
        return f' class="{" ".join(names)}"' if names else ""

    def row(texts: list[str], *, last: bool) -> str:
        first = "td" if right[0] else 'th scope="row"'  # what the row is about
        tags = [first, *["td"] * (len(texts) - 1)]
        inner = "".join(
            f"<{tag}{classes(c)}>{_safe(text)}</{tag[:2]}>"
            for c, (tag, text) in enumerate(zip(tags, texts, strict=True))
        )
        kind = ' class="total"' if last and table.total else ""
        return f"<tr{kind}>{inner}</tr>"

    title = f"<figcaption>{_safe(table.title)}</figcaption>\n" if table.title else ""
    top = "".join(f'<th scope="col"{classes(c)}>{_safe(head.title)}</th>' for c, head in enumerate(heads))
    top = f"{_groups(table)}<tr>{top}</tr>"
    body = _lines([row(texts, last=k == len(cells)) for k, texts in enumerate(cells, 1)])
    # tabindex: people who use the keyboard can reach and scroll a wide table.
    return (
        f'<figure class="table">\n{title}<div class="scroll" tabindex="0">\n<table>\n<thead>{top}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>\n</figure>"
    )


def _groups(table: Table) -> str:
    """A row above the header with the titles of groups of columns; empty if there are no groups."""
    heads = table.heads
    starts = [c for c, head in enumerate(heads) if head.group]
    if not starts:
        return ""
    row = f'<td colspan="{starts[0]}"></td>' if starts[0] else ""
    for start, end in pairwise([*starts, len(heads)]):
        row += f'<th scope="colgroup" class="group" colspan="{end - start}">{_safe(heads[start].group)}</th>'
    return f"<tr>{row}</tr>"


def _figure(figure: Figure) -> str:
    sources = []
    for media, dark, stacked in (
        (f"{_DARK} and {_NARROW}", True, True),
        (_NARROW, False, True),
        (_DARK, True, False),
    ):
        if not stacked or len(figure.panels) > 1:
            picture = _data(to_picture(figure, "svg", stacked=stacked, dark=dark, letters=True), "svg+xml")
            sources.append(f'<source media="{media}" srcset="{picture}">')
    picture = _data(to_picture(figure, "svg", letters=True), "svg+xml")
    sources.append(f'<img src="{picture}" alt="{_safe(figure.alt)}">')
    return f"<figure><picture>{_lines(sources)}</picture>{_caption(figure.caption)}</figure>"


def _image(image: Image) -> str:
    return f'<figure><img src="{_data(*image.read())}" alt="{_safe(image.alt)}">{_caption(image.caption)}</figure>'


def _caption(text: str) -> str:
    return f"<figcaption>{_safe(text)}</figcaption>" if text else ""


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _lines(parts: Sequence[str]) -> str:
    return "\n".join(parts)


def _safe(text: str) -> str:
    """Text for a page. The newlines must be our own; control characters of names are shown escaped."""
    return html.escape("\n".join(map(escaped, text.split("\n"))))
