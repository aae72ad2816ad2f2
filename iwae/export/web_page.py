"""One self-contained HTML file with interactive figures: it asks for no network, and is smaller than 3 MB.

plotly.js alone has almost 5 MB. It lies in the file compressed, beside the figures, and the browser unpacks both
(DecompressionStream: every browser since 2023).
"""

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence
from functools import cache

import plotly.graph_objects as go
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

MOST = 3_000_000  # bytes of a file
MARGIN = {"l": 70, "r": 30, "t": 50, "b": 60}  # pixels round a figure: room for the titles of its axes
HEIGHT = 420  # pixels of a figure that has no height of its own

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #0b0d10 }
h1 { font-size: 1.75rem } h2 { font-size: 1.25rem; margin-top: 2rem }
table { border-collapse: collapse } th, td { text-align: left; padding: .25rem 1rem .25rem 0; vertical-align: top }
th { font-weight: 600 } tr + tr { border-top: 1px solid #d8dce0 } td { overflow-wrap: anywhere }
img { image-rendering: pixelated; max-width: 100% } figure { margin: 1.5rem 0 } figcaption, small { color: #4a5158 }
a { color: #136aa5; overflow-wrap: anywhere }
"""
SCRIPT = """
const unpacked = async id => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), c => c.charCodeAt(0))
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).text()
}
(async () => {
  try {
    const code = document.createElement('script')
    code.text = await unpacked('plotly')
    document.head.append(code)
    for (const [id, {data, layout}] of Object.entries(JSON.parse(await unpacked('figures'))))
      await Plotly.newPlot(id, data, layout, {
        responsive: true, displaylogo: false, toImageButtonOptions: {filename: id, scale: 2},
        modeBarButtonsToAdd: [{
          name: 'svg', title: 'Download plot as an SVG', icon: Plotly.Icons.disk,
          click: plot => {
            const size = {width: plot.offsetWidth, height: plot.offsetHeight}
            const drawn = plot.data.map(one => ({...one, type: one.type?.replace(/gl$/, '')}))  // WebGL is a picture
            const figure = {data: drawn, layout: {...plot.layout, ...size}}
            Plotly.downloadImage(figure, {format: 'svg', filename: id, ...size})
          },
        }],
      })
  } catch (error) {
    document.getElementById('failed').textContent = `The figures need a browser of 2023 or later (${error}).`
  }
})()
"""


def page(title: str, parts: Sequence[str], figures: Mapping[str, tuple[go.Figure, str]]) -> bytes:
    """The file: a heading, parts of HTML (see ``table``, ``picture`` and ``text``), then figures with their captions.

    A figure for which there is no room below MOST is left out, the largest first, and a sentence says so.
    """
    drawn = {name: _figure(figure) for name, (figure, _) in figures.items()}
    names = list(drawn)
    while True:
        file = _file(title, parts, figures, {name: drawn[name] for name in names})
        if len(file) <= MOST or not names:
            return file
        names.remove(max(names, key=lambda name: len(drawn[name])))


def table(rows: Sequence[Sequence[object]], head: Sequence[object] = ()) -> str:
    """A table; the first cell of every row is its heading."""
    lines = ["<tr>" + "".join(f"<th>{text(cell)}</th>" for cell in head) + "</tr>"] if head else []
    lines += [
        f"<tr><th>{text(first)}</th>" + "".join(f"<td>{text(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def picture(png: bytes, caption: str, width: int | None = None) -> str:
    """A PNG file as part of the page; ``width`` in CSS pixels."""
    size = f' width="{width}"' if width else ""
    uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<figure><img src="{uri}" alt="{text(caption)}"{size}><figcaption>{text(caption)}</figcaption></figure>'


def text(value: object) -> str:
    """Any text, harmless in HTML."""
    return html.escape(str(value))


def _file(
    title: str, parts: Sequence[str], figures: Mapping[str, tuple[go.Figure, str]], drawn: Mapping[str, str]
) -> bytes:
    body = [f"<h1>{text(title)}</h1>", *parts]
    for name, (_, caption) in figures.items():
        shown = f'<div id="{text(name)}"></div>' if name in drawn else "<p>Too large for this file; the ZIP has it.</p>"
        body.append(f"<figure>{shown}<figcaption>{text(caption)}</figcaption></figure>")
    if drawn:
        packed = "{" + ",".join(f"{json.dumps(name)}:{figure}" for name, figure in drawn.items()) + "}"
        body += [
            '<p id="failed"></p>',
            f'<script type="application/gzip" id="plotly">{_plotly()}</script>',
            f'<script type="application/gzip" id="figures">{_packed(packed)}</script>',
            f"<script>{SCRIPT}</script>",
        ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{text(title)}</title>'
    start = f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body><main>'
    return "\n".join([start, *body, "</main></body></html>"]).encode()


def _figure(figure: go.Figure) -> str:
    """Its JSON, with room for its axes."""
    copy = go.Figure(figure)
    copy.update_layout(margin=MARGIN, height=copy.layout["height"] or HEIGHT, width=None)
    copy.update_xaxes(automargin=True).update_yaxes(automargin=True)
    return str(to_json_plotly(copy))


@cache
def _plotly() -> str:
    return _packed(get_plotlyjs())


def _packed(content: str) -> str:
    return base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode()
