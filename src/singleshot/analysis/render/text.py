"""A section as text, for terminals. Figures and images are left out."""

from __future__ import annotations

from singleshot.analysis.section import Section, Table
from singleshot.text_table import aligned


def to_text(section: Section) -> str:
    """Paragraphs and tables with empty lines between them. The title is left out: the caller may add it."""
    parts = [section.lead]
    for block in section.blocks:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, Table):
            parts += [block.title, _table(block)]
    if section.next_step:
        parts.append(f"Next: {section.next_step}")
    return "\n\n".join(part for part in parts if part)


def _table(table: Table) -> str:
    rows = [[head.title for head in table.heads], *table.cells()]
    right = table.right()
    for place in reversed([c for c, head in enumerate(table.heads) if head.group]):
        for row in rows:
            row.insert(place, "|")
        right.insert(place, False)
    return aligned(rows, right)
