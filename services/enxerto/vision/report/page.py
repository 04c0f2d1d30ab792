"""One HTML file that needs nothing else, and the drawings as PNGs."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from enxerto.vision.report.content import Figure, Report, Table


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.html` and its PNGs into a folder, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in report.all_figures:
        (folder / f"{figure.name}.png").write_bytes(figure.png)
    page = folder / "report.html"
    page.write_text(_page(report), encoding="utf-8")
    return page


def _page(report: Report) -> str:
    title = html.escape(report.title)
    tiles = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(key)}</span></div>"
        for key, value in report.headline.items()
    )
    warnings = "".join(f"<li>{html.escape(text)}</li>" for text in report.warnings)
    parts = [
        f"<h1>{title}</h1><div class=tiles>{tiles}</div>",
        f"<h2>Before you trust it</h2><ul class=warnings>{warnings}</ul>" if warnings else "",
        *(_drawing(figure) for figure in report.figures),
        *(_table(table) for table in report.tables),
        "<h2>The data</h2>" if report.data_figures or report.data_tables else "",
        *(_drawing(figure) for figure in report.data_figures),
        *(_table(table) for table in report.data_tables),
        _pairs("Where it comes from", report.provenance),
        _pairs("What it was computed with", report.environment),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"{''.join(parts)}</body></html>\n"
    )


def _drawing(figure: Figure) -> str:
    caption, data = html.escape(figure.caption), base64.b64encode(figure.png).decode()
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _table(table: Table) -> str:
    numeric = [
        bool(table.rows) and all(_is_number(row[place]) for row in table.rows) for place in range(len(table.header))
    ]

    def cells(tag: str, values: tuple[str, ...]) -> str:
        return "".join(
            f"<{tag}{' class=n' if right else ''}>{html.escape(value)}</{tag}>"
            for value, right in zip(values, numeric, strict=True)
        )

    rows = "".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    head = cells("th", table.header)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h2>{html.escape(table.title)}</h2><div class=wide>{body}</div>"


def _pairs(title: str, values: Mapping[str, str]) -> str:
    if not values:
        return ""
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in values.items()
    )
    return f"<h2>{html.escape(title)}</h2><table class=pairs>{rows}</table>"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix("%").strip() or "nan")
    except ValueError:
        return text in ("-", "–", "—")
    return True


_STYLE: Final = (
    ":root{color-scheme:light;background:#fff}"
    "body{font:16px/1.5 system-ui,sans-serif;color:#1f2933;max-width:1080px;margin:2rem auto;padding:0 1rem}"
    "h1{font-size:1.7rem}h2{margin-top:2.2rem;font-size:1.2rem}"
    ".tiles{display:flex;flex-wrap:wrap;gap:.8rem}"
    ".tiles div{background:#f0f4f8;border-radius:.6rem;padding:.7rem 1.3rem;display:flex;flex-direction:column}"
    ".tiles b{font-size:1.5rem}.tiles span{color:#52606d}"
    ".warnings{background:#fffaf0;border-left:.3rem solid #c05621;padding:.6rem .6rem .6rem 2rem}"
    "figure{margin:2rem 0}img{max-width:100%}figcaption{color:#52606d;font-size:.9rem}"
    "table{border-collapse:collapse}td,th{padding:.25rem .9rem;border-bottom:1px solid #e4e7eb;text-align:left}"
    ".wide{overflow-x:auto}.wide td,.warnings{overflow-wrap:break-word}.wide td{max-width:26rem}"
    ".n{text-align:right;font-variant-numeric:tabular-nums}"
    ".pairs td{overflow-wrap:anywhere;font-family:ui-monospace,monospace;font-size:.85rem}"
)
