"""Where a page's words stand: one session's Divs, and the one message a tick that changes them.

A property set on a Div is a message of its own. Here all that changed travels as one patch of one data
source, and a script in the browser puts it into the Divs, lets clock and ages run on between two
messages, and says when none come any more: the server sends nothing that the browser can work out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import panel as pn
from bokeh.models import ColumnDataSource, CustomJS, Div

from penstock.serving import banner

BEAT_S = 1.0
"""A page hears from its server at least so often."""
SCRIPT = """
let seen = Date.now(), ahead = Infinity, frame = null
const root = place => Bokeh.index.find_one(place)?.shadow_el
const put = (place, text) => { if (place.text !== text) { place.setv({text}, {sync: false}) } }
const age = s => s < 9.95 ? `${s.toFixed(1)} s` : s < 600 ? `${s.toFixed(0)} s`
  : s >= 172800 ? `${(s / 86400).toFixed(1)} d` : s >= 7200 ? `${(s / 3600).toFixed(1)} h`
  : `${(s / 60).toFixed(0)} min`
const clock = new Intl.DateTimeFormat('sv-SE', {timeZone: zone, dateStyle: 'short', timeStyle: 'medium'})
const tell = (cell, text) => { if (cell.textContent !== text) { cell.textContent = text } }
const run = () => {
  const silent = (Date.now() - seen) / 1000, now = Date.now() - ahead
  const words = `&#9650; THIS PAGE IS FROZEN: no link to penstock for ${silent.toFixed(0)} s`
  put(note, silent > 3 ? `<b style="color:#a00000">${words}</b>` : '')
  for (const place of Object.values(places)) {
    const values = place === places.sheet ? said.data.values[0].split('\\x1f') : []
    const inside = root(place)
    inside?.querySelectorAll('td.v').forEach((cell, k) => tell(cell, values[k] ?? ''))
    inside?.querySelectorAll('[data-since]').forEach(each => {
      tell(each, age(Math.max(now / 1000 - Number(each.dataset.since), 0)))
    })
    inside?.querySelectorAll('[data-clock]').forEach(each => tell(each, clock.format(now)))
  }
}
const hear = () => {
  seen = Date.now()
  ahead = Math.min(ahead, seen - said.data.beat[0])
  for (const [name, place] of Object.entries(places)) {
    if (name !== 'sheet') {
      put(place, said.data[name][0])
    } else if (frame !== said.data.sheet[0]) {
      frame = said.data.sheet[0]
      const values = said.data.values[0].split('\\x1f')
      put(place, frame.replace(/\\x1f/g, () => values.shift() ?? ''))
    }
  }
  run()
}
said.connect(said.patching, hear)
hear()
setInterval(run, 500)
"""
"""`said`: the source, `places`: Divs by name, `note`: the Div that says that the page is frozen, `zone`.

`ahead` is how many ms this machine's clock is ahead of the server's: the least that a message seemed to travel.
"""


class Places:
    """One session's words. `pane` where they stand, `begin` once the page is built, `say` what is new."""

    def __init__(self, names: Iterable[str], zone: str) -> None:
        """A place named "sheet" is a `banner.Sheet`, for which `say` is given its frame, and its "values"."""
        self._zone, self._note = zone, Div(text="")
        self._divs = {name: Div(text="", sizing_mode="stretch_width", stylesheets=[banner.STYLE]) for name in names}
        self._shown = dict.fromkeys((*self._divs, "values"), "")
        self._said = ColumnDataSource({**{name: [text] for name, text in self._shown.items()}, "beat": [0.0]})
        self._note.tags = [self._said]  # a source that only a script knows is no part of the document: it sends nothing
        self._told_s = float("-inf")

    def pane(self, name: str) -> Any:
        """The place of that name, for a layout."""
        return pn.pane.Bokeh(self._divs[name], sizing_mode="stretch_width")

    def scrolled(self, name: str, height: int) -> Any:
        """Likewise, at most `height` pixels high."""
        self._divs[name].styles = {"max-height": f"{height}px", "overflow-y": "auto"}
        return self.pane(name)

    def note(self) -> Any:
        """Where the browser says that nothing comes any more."""
        return pn.pane.Bokeh(self._note)

    def begin(self, document: Any) -> None:
        """Let the script run once the browser has the document."""
        parts = {"said": self._said, "note": self._note, "zone": self._zone, **self._divs}
        places = f"const places = {{{', '.join(self._divs)}}}"
        document.js_on_event("document_ready", CustomJS(args=parts, code=places + SCRIPT))

    def say(self, words: Mapping[str, str], now_s: float) -> None:
        """Send what changed in one message, and the time `now_s` (UTC); nothing where nothing did, but for a beat."""
        new = {name: text for name, text in words.items() if self._shown[name] != text}
        if not new and now_s - self._told_s < BEAT_S:
            return
        self._shown.update(new)
        self._told_s = now_s
        self._said.patch({**{name: [(0, text)] for name, text in new.items()}, "beat": [(0, 1000 * now_s)]})
