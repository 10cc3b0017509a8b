"""Tables as HTML, for notebooks. All text is escaped, because it may come from a user or from a file of somebody else."""

from collections.abc import Iterable, Sequence
from html import escape

Cell = str | int | float | None

LEFT = ' style="text-align: left"'
RIGHT = ' style="text-align: right; font-variant-numeric: tabular-nums"'


def html_table(head: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "") -> str:
    """A table. Numbers stand at the right of their cells and have separators of thousands; None leaves a cell empty."""
    title = (
        f'<caption style="caption-side: top; text-align: left; white-space: nowrap">{escape(caption)}</caption>'
        if caption
        else ""
    )
    rows = list(rows)
    numeric = [
        bool(rows) and all(isinstance(row[k], (int, float)) for row in rows if row[k] is not None) for k in range(len(head))
    ]
    names = "".join(f"<th{RIGHT if right else LEFT}>{escape(name)}</th>" for name, right in zip(head, numeric, strict=True))
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>\n" for row in rows)
    return f"<table>{title}<thead><tr>{names}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cell(value: Cell) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, str):
        return f"<td{LEFT}>{escape(value)}</td>"
    return f"<td{RIGHT}>{f'{value:,}' if isinstance(value, int) else f'{value:,.4g}'}</td>"
