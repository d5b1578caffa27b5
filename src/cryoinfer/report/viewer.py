"""A structure that moves, on a page that needs nothing but itself."""

import json
from html import escape

import numpy as np
from numpy.typing import NDArray

_STYLE = """
#moving canvas { width: 100%; touch-action: none; cursor: grab; }
#moving label { display: flex; gap: 0.6rem; align-items: center; margin: 0.3rem 0; }
#moving input { flex: 1; min-width: 0; }
#moving output { min-width: 4em; text-align: right; }
#moving button { font: inherit; padding: 0.3rem 0.8rem; }
"""

_SCRIPT = """
(function () {
  const box = document.getElementById("moving"), canvas = box.querySelector("canvas");
  const data = JSON.parse(document.getElementById("moving-data").textContent);
  const pen = canvas.getContext("2d"), sliders = [...box.querySelectorAll("input")];
  let turn = [1, 0, 0, 0, 1, 0, 0, 0, 1], held = null, playing = null;
  const times = (a, b) => [0, 1, 2].flatMap(i => [0, 1, 2].map(
    j => a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]));
  function points() {
    const z = sliders.map(s => +s.value);
    return data.rest.map((r, a) => [0, 1, 2].map(
      c => r[c] + z.reduce((sum, v, k) => sum + v * data.modes[k][a][c], 0)));
  }
  function draw() {
    const wide = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    const high = wide < 500 ? 0.8 : 0.62;
    canvas.width = wide * ratio; canvas.height = high * wide * ratio;
    // What turns to any side stays inside, however narrow the page is.
    const scale = 0.48 * Math.min(canvas.height, canvas.width) / data.reach;
    const at = points().map(p => [0, 3, 6].map(
      i => turn[i] * p[0] + turn[i + 1] * p[1] + turn[i + 2] * p[2]));
    const order = at.map((_, i) => i).slice(1)
      .filter(i => data.chain[i] === data.chain[i - 1])
      .sort((i, j) => at[i][2] - at[j][2]);
    pen.lineCap = "round";
    for (const i of order) {
      const depth = 0.5 + 0.5 * at[i][2] / data.reach;
      pen.lineWidth = ratio * (1.5 + 3 * depth);
      pen.strokeStyle = `hsl(${220 - 190 * i / at.length} 65% ${75 - 35 * depth}%)`;
      pen.beginPath();
      for (const j of [i - 1, i]) pen.lineTo(
        canvas.width / 2 + scale * at[j][0], canvas.height / 2 - scale * at[j][1]);
      pen.stroke();
    }
    sliders.forEach(s => {
      const shown = Math.abs(s.value) < 0.05 ? 0 : +s.value;
      s.nextElementSibling.textContent = shown.toFixed(1) + " \\u00c5"; });
  }
  function rotate(x, y) {
    const c = Math.cos, s = Math.sin;
    turn = times([c(x), 0, s(x), 0, 1, 0, -s(x), 0, c(x)], turn);
    turn = times([1, 0, 0, 0, c(y), -s(y), 0, s(y), c(y)], turn);
  }
  canvas.addEventListener("pointerdown", e => {
    held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", e => {
    if (!held) return;
    rotate((e.clientX - held[0]) / 150, (e.clientY - held[1]) / 150);
    held = [e.clientX, e.clientY]; draw(); });
  canvas.addEventListener("keydown", e => {
    const way = {ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, -.1],
      ArrowDown: [0, .1]}[e.key];
    if (way) { rotate(...way); draw(); e.preventDefault(); } });
  sliders.forEach(s => s.addEventListener("input", draw));
  box.querySelector("button").addEventListener("click", e => {
    if (playing) { clearInterval(playing); playing = null; }
    else { const begun = performance.now(); playing = setInterval(() => {
      const s = sliders[0], most = +s.max;
      s.value = most * Math.sin((performance.now() - begun) / 700); draw(); }, 33); }
    e.target.textContent = playing ? "Stop" : "Play the first mode"; });
  window.addEventListener("resize", draw);
  draw();
})();
"""


def moving_view(
    coordinates_angstrom: NDArray[np.float64],
    chain: NDArray[np.int64],
    displacement: NDArray[np.float64],
    widest_angstrom: NDArray[np.float64],
) -> str:
    """Return a view of a moving backbone, turned by dragging, moved by sliders.

    Parameters
    ----------
    coordinates_angstrom : ndarray, shape (n, 3)
        Of the nodes.
    chain : ndarray of int64, shape (n,)
        Neighbours of one number are joined by a line.
    displacement : ndarray, shape (k, n, 3)
        Of the nodes for an amplitude of 1 angstrom.
    widest_angstrom : ndarray, shape (k,)
        Ends of the sliders.

    Returns
    -------
    str
        HTML.
    """
    centred = coordinates_angstrom - coordinates_angstrom.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # A rotation, no mirror.
    axes[2] *= np.sign(np.linalg.det(axes))
    data = {
        "rest": (centred @ axes.T).round(2).tolist(),
        "modes": (displacement @ axes.T).round(3).tolist(),
        "chain": chain.tolist(),
        "reach": round(float(np.linalg.norm(centred, axis=1).max()), 2),
    }
    sliders = "\n".join(
        f'<label>Mode&nbsp;{number} <input type="range" min="{-wide:.2f}" '
        f'max="{wide:.2f}" step="0.05" value="0"><output></output></label>'
        for number, wide in enumerate(widest_angstrom.tolist(), 1)
    )
    text = json.dumps(data, separators=(",", ":"))
    # No text in the data can end the element.
    return (
        f"<style>{_STYLE}</style>\n"
        '<figure class="wide" id="moving"><canvas tabindex="0" role="img" '
        'aria-label="The backbone; arrow keys turn it"></canvas>\n'
        f'<div class="sliders">{sliders}\n'
        "<button>Play the first mode</button></div>\n"
        f"<figcaption>{escape('Drag to turn, or use the arrow keys.')}</figcaption>"
        "</figure>\n"
        f'<script type="application/json" id="moving-data">{text}</script>\n'
        f"<script>{_SCRIPT}</script>"
    )
