// A surface on a canvas that is turned, zoomed and cut; a chain may lie within it. The
// triangles are filled pixel by pixel, the nearest one kept: as fast as it needs to be,
// and no browser has to have WebGL.
const surfaces = (function () {
  "use strict";

  // ---- data --------------------------------------------------------------------

  function decode(id, Kind) {
    const raw = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Kind(bytes.buffer);
  }

  // A mesh from corners and triangles, with a normal a corner: the mean of those of its
  // triangles, by their areas.
  function mesh(corners, triangles) {
    const normals = new Float32Array(corners.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const a = 3 * triangles[t], b = 3 * triangles[t + 1], c = 3 * triangles[t + 2];
      const ux = corners[b] - corners[a], uy = corners[b + 1] - corners[a + 1];
      const uz = corners[b + 2] - corners[a + 2], vx = corners[c] - corners[a];
      const vy = corners[c + 1] - corners[a + 1], vz = corners[c + 2] - corners[a + 2];
      const nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx;
      for (let k = 0; k < 3; k++) {
        const corner = k === 0 ? a : k === 1 ? b : c;
        normals[corner] += nx; normals[corner + 1] += ny; normals[corner + 2] += nz;
      }
    }
    for (let i = 0; i < normals.length; i += 3) {
      const length = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
      for (let k = 0; k < 3; k++) normals[i + k] /= length;
    }
    return { corners, triangles, normals };
  }

  // ---- drawing -----------------------------------------------------------------

  const AWAY = -2;  // light of the inside of a surface, which only a cut shows

  // Corners on the screen: x, y, depth toward the viewer, and light.
  function project({ corners, normals }, { turn, scale, wide, high }) {
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
      out[j + 3] = 0.42 + 0.58 * Math.max(0, light);
    }
    return out;
  }

  // One triangle into the picture: light and depth are linear across it. What lies
  // before the cut is left out; without a cut, so is the inside of the surface.
  function fill(p, a, b, c, picture, cut) {
    const { wide, high, depth, light } = picture;
    const xa = p[a], ya = p[a + 1], xb = p[b], yb = p[b + 1], xc = p[c], yc = p[c + 1];
    const area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya);
    const inside = area > 0;  // y points down: from outside, corners go clockwise
    if (area === 0 || (inside && cut === Infinity)) return;
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
        const z = u * p[a + 2] + v * p[b + 2] + w * p[c + 2];
        const at = y * wide + x;
        if (z > cut || z <= depth[at]) continue;
        depth[at] = z;
        light[at] = inside ? AWAY : u * p[a + 3] + v * p[b + 3] + w * p[c + 3];
      }
  }

  // Lines between the neighbours of a chain, as rods: discs, one beside the other.
  function drawChain(chain, view, rods) {
    const { turn, scale, wide, high, cut } = view, { depth, hue, light } = rods;
    const radius = Math.max(1.5 * view.ratio, chain.radius * scale);
    const disc = [];
    for (let y = -Math.ceil(radius); y <= radius; y++)
      for (let x = -Math.ceil(radius); x <= radius; x++) {
        const up = 1 - (x * x + y * y) / (radius * radius);
        if (up > 0) disc.push([x, y, Math.sqrt(up)]);
      }
    const at = chain.at.map((p) => [0, 3, 6].map(
      (k) => turn[k] * p[0] + turn[k + 1] * p[1] + turn[k + 2] * p[2]));
    for (let i = 1; i < at.length; i++) {
      if (chain.number[i] !== chain.number[i - 1]) continue;
      const [p, q] = [at[i - 1], at[i]], way = q.map((end, k) => end - p[k]);
      const steps = Math.ceil(Math.hypot(way[0], way[1]) * scale / (0.5 * radius)) || 1;
      for (let s = 0; s <= steps; s++) {
        const [px, py, pz] = p.map((begin, k) => begin + (way[k] * s) / steps);
        if (pz > cut) continue;
        const cx = Math.round(wide / 2 + scale * px);
        const cy = Math.round(high / 2 - scale * py);
        for (const [dx, dy, up] of disc) {
          const x = cx + dx, y = cy + dy, z = pz + (up * radius) / scale;
          if (x < 0 || y < 0 || x >= wide || y >= high) continue;
          const place = y * wide + x;
          if (z <= depth[place]) continue;
          depth[place] = z; light[place] = 0.45 + 0.55 * up; hue[place] = i / at.length;
        }
      }
    }
  }

  const channels = (box, name) => {
    const text = getComputedStyle(box).getPropertyValue(name).trim();
    const n = parseInt(text.slice(1), 16);
    return [n >> 16, (n >> 8) & 255, n & 255];
  };

  // Blue at the beginning of a chain, over green, to red at its end.
  function rainbow(share) {
    const part = (middle) => Math.max(0, Math.min(1, 1.6 - 3.2 * Math.abs(share - middle)));
    return [part(1) + 0.1, 0.85 * part(0.5) + 0.08, part(0) + 0.1].map((c) => 230 * c);
  }

  // ---- the view ----------------------------------------------------------------

  const times = (a, b) => [0, 1, 2].flatMap((i) => [0, 1, 2].map(
    (j) => a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j]));

  // Make the figure `box` a view. `current()` is asked for the mesh to be drawn, and
  // whether it is in motion; lengths are up to `reach` from the middle.
  function view(box, reach, current, chain = null) {
    const canvas = box.querySelector("canvas"), pen = canvas.getContext("2d");
    const zoomed = box.querySelector(".zoom"), cutting = box.querySelector(".cut");
    const upright = [1, 0, 0, 0, 1, 0, 0, 0, 1];
    let turn = upright, held = null, sliding = false;

    // Where the cut is, in angstrom toward the viewer; at its end there is none.
    function cutAt() {
      const share = +cutting.value;
      return share >= +cutting.max ? Infinity : share * reach;
    }

    function draw() {
      // At rest twice as fine as the screen: the browser makes smooth edges of it.
      const screen = window.devicePixelRatio || 1, across = canvas.clientWidth;
      const { surface, moving } = current();
      const ratio = held || sliding || moving ? screen : Math.max(2, screen);
      const wide = Math.round(across * ratio);
      const high = Math.round((across < 500 ? 0.8 : 0.55) * across * ratio);
      canvas.width = wide; canvas.height = high;
      const scale = (2 ** +zoomed.value * 0.48 * Math.min(wide, high)) / reach;
      const cut = cutAt(), seen = { turn, scale, wide, high, ratio, cut };
      const points = project(surface, seen), { triangles } = surface;
      const blank = () => new Float32Array(wide * high);
      const picture = { wide, high, depth: blank().fill(-Infinity), light: blank() };
      for (let t = 0; t < triangles.length; t += 3)
        fill(points, 4 * triangles[t], 4 * triangles[t + 1], 4 * triangles[t + 2],
          picture, cut);
      let rods = null;
      if (chain) {
        rods = { depth: blank().fill(-Infinity), light: blank(), hue: blank() };
        drawChain(chain, seen, rods);
      }
      paint(picture, rods, wide, high);
      zoomed.nextElementSibling.textContent = `\u00d7${(2 ** +zoomed.value).toFixed(1)}`;
      cutting.nextElementSibling.textContent =
        cut === Infinity ? "none" : `${cut > 0 ? "+" : ""}${cut.toFixed(0)} \u00c5`;
    }

    function paint({ depth, light }, rods, wide, high) {
      const colour = channels(box, rods ? "--grey" : "--blue");
      const inside = channels(box, "--orange");
      const image = pen.createImageData(wide, high), pixel = image.data;
      for (let i = 0; i < depth.length; i++) {
        const rod = rods !== null && rods.depth[i] !== -Infinity;
        const here = depth[i] !== -Infinity;
        if (!here && !rod) continue;
        const behind = rod && here && depth[i] > rods.depth[i];
        // A surface with a chain is glass.
        const share = !here ? 0 : !rod ? 1 : behind ? 0.4 : 0;
        // What is far is paler; what faces the light is brightened beyond its colour.
        const far = 0.75 + 0.25 * Math.min(1, 0.5 + (0.5 * depth[i]) / reach);
        const l = light[i] * far, shaded = rod ? rainbow(rods.hue[i]) : colour;
        for (let c = 0; c < 3; c++) {
          const own = light[i] === AWAY ? 0.85 * inside[c]
            : colour[c] * l * 1.1 + 110 * Math.max(0, l - 0.5);
          const under = rod ? shaded[c] * rods.light[i] : 0;
          pixel[4 * i + c] = share ? share * own + (1 - share) * under : under;
        }
        pixel[4 * i + 3] = rod || rods === null ? 255 : 140;
      }
      pen.putImageData(image, 0, 0);
    }

    let waiting = false;
    function later() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    }

    function rotate(x, y) {
      const c = Math.cos, s = Math.sin;
      turn = times([c(x), 0, s(x), 0, 1, 0, -s(x), 0, c(x)], turn);
      turn = times([1, 0, 0, 0, c(y), -s(y), 0, s(y), c(y)], turn);
      later();
    }
    function zoom(steps) { zoomed.value = +zoomed.value + steps; later(); }
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
      zoom(-e.deltaY / 350);
    }, { passive: false });
    const ways = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1],
      ArrowDown: [0, 0.1] };
    canvas.addEventListener("keydown", (e) => {
      if (ways[e.key]) rotate(...ways[e.key]);
      else if (e.key === "+" || e.key === "=") zoom(0.3);
      else if (e.key === "-") zoom(-0.3);
      else return;
      e.preventDefault();
    });
    // While any slider is dragged the picture is as coarse as the screen.
    for (const slider of box.querySelectorAll("input")) {
      slider.addEventListener("input", () => { sliding = true; later(); });
      slider.addEventListener("change", () => { sliding = false; later(); });
    }
    box.querySelector(".upright").addEventListener("click", () => {
      turn = upright; zoomed.value = 0; cutting.value = cutting.max; later();
    });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
    new ResizeObserver(later).observe(box);
    draw();
    return later;
  }

  return { decode, mesh, view };
})();
