"""A bar for each scenario, a stripe for each step: an SVG that reads on light and on dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

_WIDTH, _LEFT, _RIGHT = 960, 90, 80
_BAR, _GAP, _TOP = 34, 26, 50
_LEGEND_COLUMNS, _LEGEND_LINE = 5, 24
_NARROWEST = 26
"""A stripe that is narrower goes without its figure."""
_HUES = ("#4e79a7", "#a0cbe8", "#f28e2b", "#ffbe7d", "#59a14f", "#8cd17d", "#b6992d", "#f1ce63", "#d37295", "#b07aa1",
         "#499894", "#86bcb6", "#e15759", "#9c9792")  # fmt: skip
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.figure{font-size:11px;fill:#111;text-anchor:middle}"
    ".title{font-size:15px;font-weight:600}.name{text-anchor:end}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.figure{fill:#111}}"
)


def stacked_bars(title: str, bars: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """The picture. `bars` are values by step by name; all have the same steps, in the order in which they are drawn."""
    steps = list(next(iter(bars.values())))
    longest = max(sum(values.values()) for values in bars.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    legend = _TOP + len(bars) * (_BAR + _GAP)
    height = legend + -(-len(steps) // _LEGEND_COLUMNS) * _LEGEND_LINE + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
    ]
    for row, (name, values) in enumerate(bars.items()):
        parts += _bar(name, values, _TOP + row * (_BAR + _GAP), scale, unit)
    for place, step in enumerate(steps):
        x = _LEFT + place % _LEGEND_COLUMNS * ((_WIDTH - _LEFT) // _LEGEND_COLUMNS)
        y = legend + place // _LEGEND_COLUMNS * _LEGEND_LINE
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{_hue(place)}"/>')
        parts.append(f'<text x="{x + 18}" y="{y + 11}">{escape(step)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _bar(name: str, values: Mapping[str, float], y: int, scale: float, unit: str) -> Iterator[str]:
    middle = y + _BAR // 2 + 4
    yield f'<text class="name" x="{_LEFT - 10}" y="{middle}">{escape(name)}</text>'
    x = float(_LEFT)
    for place, (step, value) in enumerate(values.items()):
        width = value * scale
        if not width:
            continue
        stripe = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{_hue(place)}">'
        yield f"{stripe}<title>{escape(step)}: {value:.1f} {escape(unit)}</title></rect>"
        if width >= _NARROWEST:
            yield f'<text class="figure" x="{x + width / 2:.1f}" y="{middle}">{value:.0f}</text>'
        x += width
    yield f'<text x="{x + 8:.1f}" y="{middle}">{sum(values.values()):.0f} {escape(unit)}</text>'


def _hue(place: int) -> str:
    return _HUES[place % len(_HUES)]
