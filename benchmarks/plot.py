"""Figures beside their targets, as SVG: a bar that stays left of the line meets its target."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

ROW, LEFT, UNIT, WIDTH = 26, 470, 240, 1020
MET, MISSED, GREY = "#2a7f62", "#b8432f", "#666"
Figure = tuple[str, str, float, float | None, bool]
"""Benchmark, name, figure, bound, whether the bound is a lower one."""


def draw(figures: Sequence[Figure], machine: str) -> str:
    """Return the picture of those figures that have a target."""
    rows = [figure for figure in figures if figure[3]]
    height = ROW * len(rows) + 84
    bottom = height - 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" fill="{GREY}">figure as a share of its target (less is better)</text>',
    ]
    for number, (benchmark, name, figure, bound, at_least) in enumerate(rows):
        assert bound
        share = bound / figure if at_least else max(figure, 0.0) / bound
        y = 40 + number * ROW
        colour = MET if share <= 1 else MISSED
        sign = "≥" if at_least else "≤"
        lines += [
            f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(f"{benchmark}: {name}")}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{min(share, 1.6) * UNIT:.1f}" height="{ROW - 8}" fill="{colour}"/>',
            f'<text x="{LEFT + min(share, 1.6) * UNIT + 8:.1f}" y="{y + 15}">{figure:.2f}'
            f'<tspan fill="{GREY}">  ({sign} {bound:g})</tspan></text>',
        ]
    lines += [
        f'<line x1="{LEFT + UNIT}" x2="{LEFT + UNIT}" y1="34" y2="{bottom}" stroke="black" stroke-dasharray="4 3"/>',
        f'<text x="{LEFT + UNIT}" y="{bottom + 18}" text-anchor="middle">target</text>',
        f'<text x="10" y="{bottom + 18}" fill="{GREY}">{escape(machine)}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
