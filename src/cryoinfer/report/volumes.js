// Maps along axes, as surfaces. A few thousand triangles are filled pixel by pixel, the
// nearest one kept: as fast as it needs to be, and no browser has to have WebGL.
(function () {
  "use strict";
  const box = document.getElementById("volumes"), canvas = box.querySelector("canvas");
  const about = JSON.parse(document.getElementById("volumes-about").textContent);
  const pen = canvas.getContext("2d");
  const labels = [...box.querySelectorAll("label")];
  const sliders = [...box.querySelectorAll("input")];
  const button = box.querySelector("button");
  let turn = [1, 0, 0, 0, 1, 0, 0, 0, 1], held = null, playing = null;
  let shown = 0, closer = 1;

  // ---- data --------------------------------------------------------------------

  function decode(id) {
    const raw = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Uint16Array(bytes.buffer);
  }

  // Corners in angstrom, triangles, and a normal a corner: the mean of those of its
  // triangles, by their areas.
  const meshes = new Map();
  function mesh(axis, frame) {
    const name = `${axis}-${frame}`;
    if (meshes.has(name)) return meshes.get(name);
    const { least, step } = about.axes[axis].frames[frame];
    const corners = Float32Array.from(
      decode(`volumes-corners-${name}`), (code) => least + step * code);
    const triangles = decode(`volumes-triangles-${name}`);
    const normals = new Float32Array(corners.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [0, 1, 2].map((k) => 3 * triangles[t + k]);
      const u = [0, 1, 2].map((k) => corners[b + k] - corners[a + k]);
      const v = [0, 1, 2].map((k) => corners[c + k] - corners[a + k]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c])
        for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
    }
    for (let i = 0; i < normals.length; i += 3) {
      const length = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
      for (let k = 0; k < 3; k++) normals[i + k] /= length;
    }
    const found = { corners, triangles, normals };
    meshes.set(name, found);
    return found;
  }

  // ---- drawing -----------------------------------------------------------------

  // Corners on the screen: x, y, depth toward the viewer, and light.
  function project({ corners, normals }, wide, high) {
    const scale = (closer * 0.48 * Math.min(wide, high)) / about.reach;
    const out = new Float32Array((corners.length / 3) * 4);
    const row = (k, p, i) =>
      turn[3 * k] * p[i] + turn[3 * k + 1] * p[i + 1] + turn[3 * k + 2] * p[i + 2];
    for (let i = 0, j = 0; i < corners.length; i += 3, j += 4) {
      out[j] = wide / 2 + scale * row(0, corners, i);
      out[j + 1] = high / 2 - scale * row(1, corners, i);
      out[j + 2] = row(2, corners, i);
      // From the upper left, before the picture.
      const light = -0.35 * row(0, normals, i) + 0.45 * row(1, normals, i) +
        0.82 * row(2, normals, i);
      out[j + 3] = 0.3 + 0.7 * Math.max(0, light);
    }
    return out;
  }

  // One triangle into the picture: light and depth are linear across it.
  function fill(points, a, b, c, wide, high, depth, light) {
    const [xa, ya, xb, yb, xc, yc] = [points[a], points[a + 1], points[b], points[b + 1],
      points[c], points[c + 1]];
    const area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya);
    if (area === 0) return;
    const left = Math.max(0, Math.ceil(Math.min(xa, xb, xc)));
    const right = Math.min(wide - 1, Math.floor(Math.max(xa, xb, xc)));
    const top = Math.max(0, Math.ceil(Math.min(ya, yb, yc)));
    const bottom = Math.min(high - 1, Math.floor(Math.max(ya, yb, yc)));
    for (let y = top; y <= bottom; y++)
      for (let x = left; x <= right; x++) {
        const v = ((x - xa) * (yc - ya) - (xc - xa) * (y - ya)) / area;
        const w = ((xb - xa) * (y - ya) - (x - xa) * (yb - ya)) / area;
        const u = 1 - v - w;
        if (u < 0 || v < 0 || w < 0) continue;
        const z = u * points[a + 2] + v * points[b + 2] + w * points[c + 2];
        const at = y * wide + x;
        if (z <= depth[at]) continue;
        depth[at] = z;
        light[at] = u * points[a + 3] + v * points[b + 3] + w * points[c + 3];
      }
  }

  function draw() {
    // At rest twice as fine as the screen: the browser makes smooth edges of it.
    const screen = window.devicePixelRatio || 1;
    const ratio = held || playing ? screen : Math.max(2, screen), across = canvas.clientWidth;
    const wide = Math.round(across * ratio);
    const high = Math.round((across < 500 ? 0.8 : 0.55) * across * ratio);
    canvas.width = wide; canvas.height = high;
    const found = mesh(shown, +sliders[shown].value);
    const points = project(found, wide, high), { triangles } = found;
    const depth = new Float32Array(wide * high).fill(-Infinity);
    const light = new Float32Array(wide * high);
    for (let t = 0; t < triangles.length; t += 3)
      fill(points, 4 * triangles[t], 4 * triangles[t + 1], 4 * triangles[t + 2],
        wide, high, depth, light);
    const n = parseInt(
      getComputedStyle(box).getPropertyValue("--blue").trim().slice(1), 16);
    const colour = [n >> 16, (n >> 8) & 255, n & 255];
    const image = pen.createImageData(wide, high), pixel = image.data;
    for (let i = 0; i < depth.length; i++) {
      if (depth[i] === -Infinity) continue;
      // What is far is paler; what faces the light is brightened beyond its colour.
      const far = 0.75 + 0.25 * Math.min(1, 0.5 + (0.5 * depth[i]) / about.reach);
      const l = light[i] * far;
      for (let c = 0; c < 3; c++)
        pixel[4 * i + c] = colour[c] * l * 1.1 + 110 * Math.max(0, l - 0.5);
      pixel[4 * i + 3] = 255;
    }
    pen.putImageData(image, 0, 0);
    sliders.forEach((slider, k) => {
      const { at, unit } = about.axes[k], place = at[+slider.value];
      const text = `${place}${unit ? ` ${unit}` : ""}`;
      slider.nextElementSibling.textContent = text;
      slider.setAttribute("aria-valuetext", text);
      labels[k].classList.toggle("shown", k === shown);
    });
  }
  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }

  // ---- controls ----------------------------------------------------------------

  const times = (a, b) => [0, 1, 2].flatMap((i) => [0, 1, 2].map(
    (j) => a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]));
  function rotate(x, y) {
    const c = Math.cos, s = Math.sin;
    turn = times([c(x), 0, s(x), 0, 1, 0, -s(x), 0, c(x)], turn);
    turn = times([1, 0, 0, 0, c(y), -s(y), 0, s(y), c(y)], turn);
    later();
  }
  function zoom(factor) { closer = Math.min(8, Math.max(0.5, closer * factor)); later(); }
  canvas.addEventListener("pointerdown", (e) => {
    held = [e.clientX, e.clientY];
    canvas.setPointerCapture(e.pointerId);
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => { held = null; later(); });
  canvas.addEventListener("pointermove", (e) => {
    if (!held) return;
    rotate((e.clientX - held[0]) / 150, (e.clientY - held[1]) / 150);
    held = [e.clientX, e.clientY];
  });
  // The wheel scrolls the page until the picture was clicked.
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas && !e.ctrlKey) return;
    e.preventDefault();
    zoom(Math.exp(-e.deltaY / 500));
  }, { passive: false });
  const ways = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1],
    ArrowDown: [0, 0.1] };
  canvas.addEventListener("keydown", (e) => {
    if (ways[e.key]) rotate(...ways[e.key]);
    else if (e.key === "+" || e.key === "=") zoom(1.25);
    else if (e.key === "-") zoom(0.8);
    else return;
    e.preventDefault();
  });
  sliders.forEach((slider, k) => {
    // Also when it is only touched: the axis is shown where its slider stands.
    for (const touched of ["input", "focus"])
      slider.addEventListener(touched, () => { shown = k; later(); });
  });
  button.addEventListener("click", () => {
    if (playing) { clearInterval(playing); playing = null; }
    else {
      let way = 1;
      playing = setInterval(() => {
        const slider = sliders[shown], at = +slider.value;
        if (at + way < 0 || at + way > +slider.max) way = -way;
        slider.value = at + way;
        later();
      }, 150);
    }
    button.textContent = playing ? "Stop" : "Play this axis";
    later();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  new ResizeObserver(later).observe(box);
  draw();
})();
