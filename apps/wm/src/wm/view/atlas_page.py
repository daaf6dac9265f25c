"""The page of `wm atlas`: one self-contained HTML file."""

from collections.abc import Iterator, Sequence
from html import escape
from math import log2
from pathlib import Path

from wm.console import depth_name
from wm.files import require_place, write_text
from wm.opened import OpenedRun
from wm.view.atlas import Atlas, Code, Level, Sharing, read_atlas
from wm.view.images import coarse, data_uri, row, tint
from wm.view.viewer import Viewer

COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ec4899", "#8b5cf6", "#14b8a6", "#ef4444", "#84cc16")
CHART_HEIGHT = 120

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #16202e; --faint: #667085;
  --line: #e2e6ec; --mark: #e8590c; }
@media (prefers-color-scheme: dark) { :root { --paper: #0e1117; --card: #171b23; --ink: #e6e9ef;
  --faint: #8d96a7; --line: #2a303c; --mark: #ff922b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1720px; margin: 0 auto; padding: 28px 32px 80px; }
h1 { font-size: 28px; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 21px; margin: 44px 0 4px; }
p { max-width: 80ch; margin: 4px 0 14px; color: var(--faint); }
nav { position: sticky; top: 0; z-index: 1; background: var(--paper); border-bottom: 1px solid var(--line);
  padding: 10px 32px; display: flex; flex-wrap: wrap; gap: 6px 22px; align-items: center; }
nav a { color: inherit; font-weight: 600; text-decoration: none; }
nav a:hover { color: var(--mark); }
.legend { margin-left: auto; display: flex; flex-wrap: wrap; gap: 4px 16px; color: var(--faint);
  font-size: 13px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
table { display: block; width: fit-content; max-width: 100%; overflow-x: auto; border-collapse: collapse;
  margin: 10px 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px; text-align: right; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { color: var(--faint); font-weight: 600; font-size: 13px; }
th:first-child, td:first-child { text-align: left; }
.tables { display: flex; flex-wrap: wrap; gap: 16px; }
caption { text-align: left; color: var(--faint); font-size: 13px; padding: 0 2px 4px; }
.chart { width: 100%; height: 120px; display: block; background: var(--card); margin: 10px 0 16px;
  border: 1px solid var(--line); border-radius: 8px; }
.chart a:hover rect { opacity: .55; }
.codes { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--card-width)), 1fr));
  gap: 14px; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px;
  scroll-margin-top: 60px; content-visibility: auto; contain-intrinsic-size: auto 290px; }
article:target { border-color: var(--mark); box-shadow: 0 0 0 1px var(--mark); }
article header { display: flex; gap: 12px; align-items: baseline; margin-bottom: 8px; }
article b { font-size: 16px; }
.share { color: var(--faint); font-size: 13px; margin-left: auto; display: flex; gap: 12px;
  font-variant-numeric: tabular-nums; }
img { display: block; border-radius: 3px; width: 100%; }
.owners { display: flex; gap: 4px; margin-top: 3px; }
.owners i { flex: 1; height: 4px; border-radius: 2px; }
.drawn { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 4px; margin-top: 10px; }
figure { margin: 0; }
figcaption { font-size: 12px; color: var(--faint); text-align: center; }
.here img { outline: 2px solid var(--mark); }
.here figcaption { color: var(--mark); font-weight: 600; }
.adds { grid-column-end: -1; }
"""


def write_atlas(opened: OpenedRun, *, out: Path | None, levels: Sequence[int], examples: int) -> None:
    """What `wm atlas` does: read the run, write one page.

    Raises:
        ValueError: the run has no decoder or no such level, or an artifact is missing or damaged.
    """
    config, layout = opened.config, opened.layout
    if wrong := [level for level in levels if not 0 <= level < config.hrvq.levels]:
        raise ValueError(
            f"--level {wrong[0]} is not in this run; its levels are 0 to {config.hrvq.levels - 1}"
        )
    viewer = Viewer.load(layout, opened.device)
    chosen = sorted(set(levels)) or list(range(config.hrvq.levels))
    target = out or layout.root / "atlas.html"
    if target.suffix.lower() != ".html":
        raise ValueError(f"--out is {target}; the page is HTML, so give a name that ends in .html")
    require_place(target)
    atlas = read_atlas(layout, config.games, viewer, chosen, examples, config.seed, opened.reporter)
    write_text(target, page(atlas))
    opened.console.print(f"written to {target}; open it in a browser")


def page(atlas: Atlas) -> str:
    """The whole file."""
    examples = max((len(code.examples) for level in atlas.levels for code in level.codes), default=1)
    columns = max(examples, *(len(code.drawn) for level in atlas.levels for code in level.codes), 1)
    style = f":root {{ --columns: {columns}; --card-width: {30 + 88 * columns}px; }}{STYLE}"
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>Codes of {escape(atlas.title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{style}</style></head><body>",
            *_navigation(atlas),
            "<main>",
            *_overview(atlas),
            *(_sharing(atlas, atlas.sharing) if atlas.sharing is not None else ()),
            *(line for level in atlas.levels for line in _level(atlas, level)),
            "</main></body></html>\n",
        ]
    )


def _navigation(atlas: Atlas) -> Iterator[str]:
    yield '<nav><a href="#top">Overview</a>'
    if atlas.sharing is not None:
        yield '<a href="#games">Games</a>'
    yield from (f'<a href="#L{level.index}">L{level.index}</a>' for level in atlas.levels)
    yield f'<span class="legend">{"".join(_names(atlas.games))}</span></nav>'


def _names(games: tuple[str, ...]) -> Iterator[str]:
    for index, game in enumerate(games):
        yield f'<span><span class="dot" style="background:{_colour(index)}"></span>{escape(game)}</span>'


def _overview(atlas: Atlas) -> Iterator[str]:
    seen = ", ".join(
        f"{count:,} frames of {escape(game)}" for game, count in zip(atlas.games, atlas.frames, strict=True)
    )
    yield f'<h1 id="top">Codes of {escape(atlas.title)}</h1><p>All collected play: {seen}. A frame is one '
    yield "code per level: L0 is the coarsest, and each further level adds what those before it left out.</p>"
    heads = ("level", "codes in use", "perplexity", "bits", "same in the next frame")
    yield from _table(
        heads,
        (
            (
                f"L{level.index}",
                f"{len(level.codes)} of {level.size}",
                f"{level.perplexity:.1f}",
                f"{log2(max(level.perplexity, 1)):.2f} of {log2(level.size):.2f}",
                f"{level.persistence:.0%}",
            )
            for level in atlas.levels
        ),
    )


def _sharing(atlas: Atlas, sharing: Sharing) -> Iterator[str]:
    most = log2(len(atlas.games))
    yield '<h2 id="games">What the games share</h2>'
    yield "<p>Used: the share of all codes. Shared: of the codes that any game has in more than 1 of 10,000 "
    yield "frames, the share that every game has as often. Information: how much one token tells about which "
    yield f"game it is from, 0 if all games use the level alike, at most {most:.2f} bits; the 95 % interval "
    yield "is a bootstrap over episodes.</p>"
    low, high = sharing.information.low, sharing.information.high
    heads = (
        "level",
        *(f"used by {escape(game)}" for game in atlas.games),
        "shared",
        "information",
        "interval",
    )
    yield from _table(
        heads,
        (
            (
                f"L{level.index}",
                *(f"{share:.0%}" for share in sharing.usage[i].tolist()),
                f"{float(sharing.shared[i]):.0%}",
                f"{float(sharing.information.estimate[i]):.3f} bits",
                f"{float(low[i]):.3f} to {float(high[i]):.3f}",
            )
            for i, level in enumerate(atlas.levels)
        ),
    )
    yield "<p>How differently two games use a level's codes (Jensen-Shannon divergence): 0 bits if alike, "
    yield '1 bit if they share none.</p><div class="tables">'
    for i, level in enumerate(atlas.levels):
        values = sharing.divergence[i].tolist()
        yield from _table(
            ("", *map(escape, atlas.games)),
            (
                (escape(game), *("" if j == k else f"{value:.3f}" for k, value in enumerate(values[j])))
                for j, game in enumerate(atlas.games)
            ),
            caption=f"L{level.index}",
        )
    yield "</div>"


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]], caption: str = "") -> Iterator[str]:
    yield f"<table>{f'<caption>{caption}</caption>' if caption else ''}"
    yield f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"
    for cells in rows:
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table>"


def _level(atlas: Atlas, level: Level) -> Iterator[str]:
    yield f'<h2 id="L{level.index}">L{level.index}</h2>'
    yield f"<p>{len(level.codes)} codes, the most used first; the height of a bar is the share of frames. "
    yield "For each code: the real frames nearest to it, from different moments; the first of them as the "
    yield "decoder draws it, level by level; and what the code adds, on average over these frames (orange "
    yield "brighter, blue darker).</p>"
    total = sum(atlas.frames)
    yield from _chart(level, total)
    yield '<div class="codes">'
    for code in level.codes:
        yield from _code(atlas, level, code)
    yield "</div>"


def _chart(level: Level, total: int) -> Iterator[str]:
    """A bar per code, stacked by game; a click leads to the code."""
    tallest = max((int(code.counts.sum()) for code in level.codes), default=1)
    yield f'<svg class="chart" viewBox="0 0 {max(1, len(level.codes))} {CHART_HEIGHT}" '
    yield 'preserveAspectRatio="none">'
    for place, code in enumerate(level.codes):
        top = float(CHART_HEIGHT)
        bars = []
        for game, count in enumerate(code.counts.tolist()):
            height = count / tallest * (CHART_HEIGHT - 12)
            top -= height
            bars.append(
                f'<rect x="{place + 0.08:.2f}" y="{top:.2f}" width=".84" height="{height:.2f}" '
                f'fill="{_colour(game)}"/>'
            )
        share = int(code.counts.sum()) / total
        title = f"<title>code {code.index}: {share:.2%} of frames</title>"
        yield f'<a href="#L{level.index}-{code.index}">{title}{"".join(bars)}</a>'
    yield "</svg>"


def _code(atlas: Atlas, level: Level, code: Code) -> Iterator[str]:
    shares = code.counts.tolist()
    yield f'<article id="L{level.index}-{code.index}"><header><b>{code.index}</b>'
    yield f'<span class="share">{sum(shares) / sum(atlas.frames):.2%}'
    if len(atlas.games) > 1:
        for game, (count, frames) in enumerate(zip(shares, atlas.frames, strict=True)):
            if count:
                yield f'<span title="of {escape(atlas.games[game])}"><span class="dot" '
                yield f'style="background:{_colour(game)}"></span>{count / frames:.2%}</span>'
    width = f"calc({len(code.examples)} / var(--columns) * 100%)"
    yield f'</span></header><div style="width: {width}">'
    yield f'<img alt="real frames" src="{data_uri(row(code.examples))}">'
    if len(atlas.games) > 1:
        marks = (
            f'<i style="background:{_colour(game)}" title="{escape(atlas.games[game])}"></i>'
            for game in code.games
        )
        yield f'<div class="owners">{"".join(marks)}</div>'
    yield '</div><div class="drawn">'
    for depth, drawn in enumerate(code.drawn[1:]):
        here = ' class="here"' if depth == level.index else ""
        yield f'<figure{here}><img alt="drawn" src="{data_uri(coarse(drawn))}">'
        yield f"<figcaption>{depth_name(depth)}</figcaption></figure>"
    yield f'<figure class="adds"><img alt="what the code adds" src="{data_uri(tint(code.added))}">'
    yield "<figcaption>adds</figcaption></figure></div></article>"


def _colour(game: int) -> str:
    return COLOURS[game % len(COLOURS)]
