// The particles of a run as a picture to look into. Everything is drawn on a plain
// 2-D canvas: points are counted into pixels, so that a million of them show their
// density and no browser has to have WebGL.
//
// Columns come as 16-bit codes (packing.py): value = least + step * code. All
// geometry is done in codes; values are computed for what is written in letters.
(function () {
  "use strict";
  const MISSING = 65535;
  const COUNT = -1; // colours say how many particles lie on a dot
  const MARGIN = { left: 58, right: 10, top: 8, bottom: 42 }; // CSS pixels
  const REACH = 14; // CSS pixels, from the pointer to the particle that it means
  const KEY_STEP = 0.1; // of the width in view
  const ZOOM = 1.25;
  const MOST_DIAMETER = 6; // CSS pixels, of a point

  const box = document.getElementById("scatter");
  const about = JSON.parse(document.getElementById("scatter-about").textContent);
  const find = (name) => box.querySelector(name);
  const canvas = find(".points"), pen = canvas.getContext("2d");
  const marks = find(".marks"), marker = marks.getContext("2d");
  const bar = find(".bar"), count = find(".count"), particle = find(".particle");
  const choice = { x: find(".x"), y: find(".y"), colour: find(".colour") };
  const limit = { low: find(".low"), high: find(".high") };
  const button = (name) => find(`button[data-do="${name}"]`);

  const view = { x: [0, 1], y: [0, 1] }; // codes at the edges of the picture
  const chosen = new Uint8Array(about.shown); // 1 where a particle is selected
  let colours = [0, 1]; // codes at the ends of the colour bar
  let selected = 0, inView = 0, hovered = -1, cross = null;
  let lasso = null, held = null, mode = "pan", first = true;
  const fingers = new Map();

  // ---- data --------------------------------------------------------------------

  function decode(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }
  const textOf = (id) => document.getElementById(id).textContent;

  // A column is decoded when it is drawn for the first time.
  const decoded = new Map();
  function codes(column) {
    if (!decoded.has(column)) {
      const bytes = decode(textOf(`scatter-column-${column}`));
      decoded.set(column, new Uint16Array(bytes.buffer));
    }
    return decoded.get(column);
  }

  // One code of a column that may not be decoded: 4 letters hold 3 bytes.
  function codeAt(column, i) {
    if (decoded.has(column)) return decoded.get(column)[i];
    const begin = Math.floor((2 * i) / 3), skip = 2 * i - 3 * begin;
    const node = document.getElementById(`scatter-column-${column}`).firstChild;
    const raw = atob(node.substringData(4 * begin, 8));
    return raw.charCodeAt(skip) + 256 * raw.charCodeAt(skip + 1);
  }

  // Only a subset says which rows it is of.
  let rows = null;
  function rowOf(i) {
    if (!about.subset) return i;
    if (!rows) rows = new Uint32Array(decode(textOf("scatter-rows")).buffer);
    return rows[i];
  }

  const valueOf = (column, code) =>
    about.columns[column].least + about.columns[column].step * code;
  const codeOf = (column, value) =>
    (value - about.columns[column].least) / about.columns[column].step;

  // Quantiles are exact: there are only 65,535 codes to count.
  const tables = new Map();
  function quantile(column, share) {
    if (!tables.has(column)) {
      const table = new Uint32Array(MISSING + 1), all = codes(column);
      for (let i = 0; i < all.length; i++) table[all[i]]++;
      tables.set(column, table);
    }
    const table = tables.get(column);
    const known = about.shown - table[MISSING];
    if (known === 0) return 0;
    const rank = Math.round(share * (known - 1)); // of few, the outermost
    let code = 0, below = table[0];
    while (below <= rank) below += table[++code];
    return code;
  }

  // ---- what is in view ---------------------------------------------------------

  // Nearly all particles, with room about them: one far away would make a dot of the
  // others. How many are in view is said below the picture.
  function usualRange(column) {
    const low = quantile(column, 0.001), high = quantile(column, 0.999);
    const room = Math.max(0.15 * (high - low), 0.5);
    return [low - room, high + room];
  }
  function wholeRange(column) {
    const low = quantile(column, 0), high = quantile(column, 1);
    const room = Math.max(0.04 * (high - low), 0.5);
    return [low - room, high + room];
  }
  const axis = (name) => +choice[name].value;

  function zoom(factor, x, y) {
    for (const [name, share] of [["x", x], ["y", y]]) {
      const [low, high] = view[name], fixed = low + share * (high - low);
      view[name] = [fixed + (low - fixed) / factor, fixed + (high - fixed) / factor];
    }
    later();
  }
  function pan(x, y) {
    for (const [name, share] of [["x", x], ["y", y]]) {
      const by = share * (view[name][1] - view[name][0]);
      view[name] = [view[name][0] + by, view[name][1] + by];
    }
    later();
  }

  // Where the picture is on the page, in CSS pixels.
  function frame() {
    const wide = canvas.clientWidth, high = canvas.clientHeight;
    return {
      left: MARGIN.left, top: MARGIN.top,
      wide: wide - MARGIN.left - MARGIN.right, high: high - MARGIN.top - MARGIN.bottom,
    };
  }
  function toShare(event) { // of the picture's width from the left, height from below
    const at = canvas.getBoundingClientRect(), f = frame();
    return [
      (event.clientX - at.left - f.left) / f.wide,
      1 - (event.clientY - at.top - f.top) / f.high,
    ];
  }
  const toCode = (name, share) => view[name][0] + share * (view[name][1] - view[name][0]);
  const toScreen = (f, x, y) => [
    f.left + ((x - view.x[0]) / (view.x[1] - view.x[0])) * f.wide,
    f.top + (1 - (y - view.y[0]) / (view.y[1] - view.y[0])) * f.high,
  ];

  // ---- colours -----------------------------------------------------------------

  const darkPage = window.matchMedia("(prefers-color-scheme: dark)");
  function themed(name) { return getComputedStyle(box).getPropertyValue(name).trim(); }
  function rgb(text) {
    const n = parseInt(text.slice(1), 16);
    return [n >> 16, (n >> 8) & 255, n & 255];
  }
  // The end of the map that is as dark, or as bright, as the page is left out.
  function palette() {
    const [from, to] = darkPage.matches ? [0.18, 1] : [0, 0.9];
    const table = new Uint8Array(3 * 256), stops = about.map, last = stops.length - 1;
    for (let i = 0; i < 256; i++) {
      const at = (from + ((to - from) * i) / 255) * last;
      const k = Math.min(Math.floor(at), last - 1);
      for (let c = 0; c < 3; c++)
        table[3 * i + c] = stops[k][c] + (at - k) * (stops[k + 1][c] - stops[k][c]);
    }
    return table;
  }

  // ---- drawing -----------------------------------------------------------------

  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }

  // Counts of particles, and sums of their colours, by pixel. Those that are not
  // selected, or have no value to be coloured by, are counted apart.
  function gather(wide, high, rim) {
    const row = wide + 2 * rim, size = row * (high + 2 * rim);
    const bright = new Float32Array(size), sum = new Float32Array(size);
    const grey = new Float32Array(size);
    const xs = codes(axis("x")), ys = codes(axis("y")), by = axis("colour");
    const cs = by === COUNT ? null : codes(by), some = selected > 0;
    const [x0, x1] = view.x, [y0, y1] = view.y;
    const ax = wide / (x1 - x0), ay = high / (y1 - y0);
    inView = 0;
    for (let i = 0; i < xs.length; i++) {
      if (xs[i] === MISSING || ys[i] === MISSING) continue;
      const u = (xs[i] - x0) * ax, v = (y1 - ys[i]) * ay;
      if (u < 0 || v < 0 || u >= wide || v >= high) continue;
      inView++;
      const at = ((v | 0) + rim) * row + (u | 0) + rim;
      if ((some && !chosen[i]) || (cs && cs[i] === MISSING)) { grey[at]++; continue; }
      bright[at]++;
      if (cs) sum[at] += cs[i];
    }
    return { bright, sum, grey, row, size };
  }

  // Every pixel that holds particles becomes a disc.
  function spread(field, row, rim, diameter) {
    const out = new Float32Array(field.length), discs = [];
    const r = diameter / 2 - 0.25; // without the tips of a disc of few pixels
    for (let y = -rim; y <= rim; y++)
      for (let x = -rim; x <= rim; x++)
        if (x * x + y * y <= r * r) discs.push(y * row + x);
    for (let i = rim * row + rim; i < field.length - rim * row - rim; i++)
      if (field[i] !== 0) for (const step of discs) out[i + step] += field[i];
    return out;
  }

  function opacities(strength) {
    const table = new Float32Array(65);
    for (let n = 0; n < 65; n++) table[n] = 1 - Math.pow(1 - strength, n);
    return (n) => table[n > 64 ? 64 : n];
  }

  function drawPoints(f, ratio) {
    const wide = Math.max(1, Math.round(f.wide * ratio));
    const high = Math.max(1, Math.round(f.high * ratio));
    const rim = Math.ceil((MOST_DIAMETER * ratio) / 2);
    const found = gather(wide, high, rim);
    // Fewer particles are drawn larger.
    const many = Math.max(inView, 1), fit = 3 * Math.pow(5e4 / many, 0.25);
    const diameter = ratio * Math.min(MOST_DIAMETER, Math.max(1.4, fit));
    const [bright, sum, grey] = [found.bright, found.sum, found.grey].map(
      (field) => spread(field, found.row, rim, diameter));
    const counted = axis("colour") === COUNT;
    let most = 1;
    if (counted) for (let i = 0; i < found.size; i++) if (bright[i] > most) most = bright[i];
    const strength = Math.min(0.85, Math.max(0.3, 0.85 * Math.pow(2e4 / many, 0.2)));
    const opaque = opacities(strength), table = palette(), dull = rgb(themed("--grey"));
    const image = pen.createImageData(found.row, found.size / found.row);
    const pixel = image.data, [low, top] = colours, width = Math.max(top - low, 1e-9);
    const most1 = Math.log(most + 1) - Math.log(2) || 1;
    for (let i = 0; i < found.size; i++) {
      const n = bright[i], m = grey[i];
      if (n === 0 && m === 0) continue;
      const over = counted && n > 0 ? 1 : opaque(n), under = 0.4 * opaque(m) * (1 - over);
      const share = counted
        ? (Math.log(n + 1) - Math.log(2)) / most1 : (sum[i] / n - low) / width;
      const k = n === 0 ? 0 : 3 * Math.round(255 * Math.min(1, Math.max(0, share)));
      const alpha = over + under;
      for (let c = 0; c < 3; c++)
        pixel[4 * i + c] = (table[k + c] * over + dull[c] * under) / alpha;
      pixel[4 * i + 3] = 255 * alpha;
    }
    pen.putImageData(image, Math.round(f.left * ratio) - rim,
      Math.round(f.top * ratio) - rim, rim, rim, wide, high);
    if (counted) { limit.low.value = 1; limit.high.value = most; }
  }

  function niceStep(width, parts) {
    const raw = width / parts, decade = Math.pow(10, Math.floor(Math.log10(raw)));
    return decade * [1, 2, 5, 10].find((m) => m * decade >= raw * 0.999);
  }
  function title(column) {
    const c = about.columns[column];
    return c.unit ? `${c.name} (${c.unit})` : c.name;
  }

  function drawAxes(f, ratio) {
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const ink = themed("--ink"), muted = themed("--muted");
    pen.strokeStyle = muted; pen.fillStyle = muted; pen.lineWidth = 1;
    pen.font = "13px system-ui, sans-serif";
    pen.strokeRect(f.left - 0.5, f.top - 0.5, f.wide + 1, f.high + 1);
    for (const name of ["x", "y"]) {
      const column = axis(name), along = name === "x";
      const [low, high] = view[name].map((code) => valueOf(column, code));
      const step = niceStep(high - low, along ? f.wide / 65 : f.high / 55);
      const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
      pen.textAlign = along ? "center" : "right";
      pen.textBaseline = along ? "top" : "middle";
      for (let k = Math.ceil(low / step); k * step <= high; k++) {
        const share = (k * step - low) / (high - low);
        const text = digits > 6 || Math.abs(k * step) >= 1e6
          ? (k * step).toExponential(1) : (k * step).toFixed(Math.min(digits, 6));
        pen.beginPath();
        if (along) {
          const x = f.left + share * f.wide, y = f.top + f.high;
          pen.moveTo(x, y); pen.lineTo(x, y + 5);
          pen.fillText(text, x, y + 7);
        } else {
          const y = f.top + (1 - share) * f.high;
          pen.moveTo(f.left - 5, y); pen.lineTo(f.left, y);
          pen.fillText(text, f.left - 7, y);
        }
        pen.stroke();
      }
    }
    pen.fillStyle = ink;
    pen.textAlign = "center"; pen.textBaseline = "bottom";
    pen.fillText(title(axis("x")), f.left + f.wide / 2, f.top + f.high + MARGIN.bottom - 1);
    pen.save();
    pen.translate(14, f.top + f.high / 2); pen.rotate(-Math.PI / 2);
    pen.fillText(title(axis("y")), 0, 0);
    pen.restore();
    pen.setTransform(1, 0, 0, 1, 0, 0);
  }

  function drawBar() {
    bar.width = 256; bar.height = 1;
    const brush = bar.getContext("2d"), image = brush.createImageData(256, 1);
    const table = palette();
    for (let i = 0; i < 256; i++)
      image.data.set([table[3 * i], table[3 * i + 1], table[3 * i + 2], 255], 4 * i);
    brush.putImageData(image, 0, 0);
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const wide = canvas.clientWidth;
    find(".picture").style.height =
      `${Math.round(Math.min(0.95 * wide, Math.max(0.58 * wide, 300)))}px`;
    for (const one of [canvas, marks]) {
      one.width = Math.round(canvas.clientWidth * ratio);
      one.height = Math.round(canvas.clientHeight * ratio);
    }
    const f = frame();
    drawPoints(f, ratio);
    drawAxes(f, ratio);
    drawBar();
    tell();
    drawMarks();
    if (first) performance.mark("scatter-drawn"); // tests and measurements look at it
    first = false;
  }

  const spelled = (n) => n.toLocaleString("en");
  function tell() {
    const sample = about.subset ? ` shown, of ${spelled(about.total)}` : "";
    count.textContent = `${spelled(inView)} in view of ${spelled(about.shown)}${sample}` +
      ` · ${spelled(selected)} selected`;
    for (const name of ["clear", "save"]) button(name).disabled = selected === 0;
  }

  // What moves with the pointer lies on a canvas of its own: points stay as they are.
  function drawMarks() {
    const ratio = window.devicePixelRatio || 1, f = frame();
    marker.setTransform(ratio, 0, 0, ratio, 0, 0);
    marker.clearRect(0, 0, marks.width, marks.height);
    marker.strokeStyle = themed("--ink"); marker.fillStyle = themed("--ink");
    marker.font = "13px system-ui, sans-serif"; marker.lineWidth = 1.5;
    drawUsualSd(f);
    marker.save();
    if (hovered >= 0) drawHovered(f);
    marker.restore();
    if (cross) {
      const [x, y] = [f.left + cross[0] * f.wide, f.top + (1 - cross[1]) * f.high];
      marker.beginPath();
      marker.moveTo(x - 9, y); marker.lineTo(x + 9, y);
      marker.moveTo(x, y - 9); marker.lineTo(x, y + 9);
      marker.stroke();
    }
    if (lasso) {
      marker.setLineDash([5, 4]);
      marker.beginPath();
      for (const [x, y] of lasso) marker.lineTo(...toScreen(f, x, y));
      marker.closePath(); marker.stroke();
      marker.setLineDash([]);
    }
  }

  // Half an axis of an ellipse on the screen, from a posterior's sd; 0 without one.
  function radius(f, name, sdOf) {
    const column = axis(name), sd = about.columns[column].sd;
    if (sd === null) return 0;
    const code = sdOf(sd);
    if (code === MISSING) return 0;
    const size = name === "x" ? f.wide : f.high;
    return (valueOf(sd, code) / about.columns[column].step) * size /
      (view[name][1] - view[name][0]);
  }
  function drawUsualSd(f) {
    const median = (column) => quantile(column, 0.5);
    const a = radius(f, "x", median), b = radius(f, "y", median);
    if ((a === 0 && b === 0) || a > f.wide / 4 || b > f.high / 4) return;
    marker.beginPath();
    marker.ellipse(f.left + a + 10, f.top + f.high - b - 10, a, b, 0, 0, 2 * Math.PI);
    marker.stroke();
    marker.textAlign = "left"; marker.textBaseline = "middle";
    marker.fillText("median sd", f.left + 2 * a + 16, f.top + f.high - b - 10);
  }
  function drawHovered(f) {
    const [x, y] = toScreen(f, codeAt(axis("x"), hovered), codeAt(axis("y"), hovered));
    const sd = (column) => codeAt(column, hovered);
    marker.save();
    marker.beginPath(); marker.rect(f.left, f.top, f.wide, f.high); marker.clip();
    // Each line on a wider one in the colour of the page: seen on any points.
    for (const [width, colour] of [[4.5, "--card"], [1.5, "--ink"]]) {
      marker.lineWidth = width; marker.strokeStyle = themed(colour);
      marker.beginPath();
      marker.ellipse(x, y, radius(f, "x", sd), radius(f, "y", sd), 0, 0, 2 * Math.PI);
      marker.stroke();
      marker.beginPath(); marker.arc(x, y, 5, 0, 2 * Math.PI); marker.stroke();
    }
    marker.restore();
    const right = x > f.left + f.wide / 2;
    marker.textAlign = right ? "right" : "left"; marker.textBaseline = "bottom";
    const text = `row ${rowOf(hovered)}`, at = x + (right ? -9 : 9);
    marker.lineWidth = 4; marker.strokeStyle = themed("--card");
    marker.strokeText(text, at, y - 6);
    marker.fillText(text, at, y - 6);
  }

  // ---- the particle under the pointer ------------------------------------------

  function nearest(shareX, shareY) {
    const f = frame(), xs = codes(axis("x")), ys = codes(axis("y"));
    const x = toCode("x", shareX), y = toCode("y", shareY);
    const ax = f.wide / (view.x[1] - view.x[0]), ay = f.high / (view.y[1] - view.y[0]);
    let best = REACH * REACH, at = -1;
    for (let i = 0; i < xs.length; i++) {
      const u = (xs[i] - x) * ax;
      if (u > REACH || u < -REACH) continue;
      const v = (ys[i] - y) * ay, d = u * u + v * v;
      if (d < best && xs[i] !== MISSING && ys[i] !== MISSING) { best = d; at = i; }
    }
    return at;
  }
  const nothing = particle.textContent; // what is said where there is no particle

  function written(column, code) {
    if (code === MISSING) return "none";
    const value = valueOf(column, code), { exact, step } = about.columns[column];
    if (exact) return String(value);
    return Math.abs(value) < step ? "0" : String(+value.toPrecision(4));
  }
  function hover(i) {
    if (i === hovered) return;
    hovered = i;
    particle.replaceChildren();
    if (i < 0) { particle.textContent = nothing; drawMarks(); return; }
    const add = (tag, text, parent) => {
      const one = document.createElement(tag);
      one.textContent = text; parent.append(one); return one;
    };
    add("b", `Row ${rowOf(i)}`, particle);
    const ofOthers = new Set(about.columns.map((c) => c.sd));
    about.columns.forEach((c, k) => {
      if (ofOthers.has(k)) return; // written behind the column whose sd it is
      const one = add("span", "", particle);
      add("i", `${c.name} `, one);
      const sd = c.sd === null ? "" : ` ± ${written(c.sd, codeAt(c.sd, i))}`;
      one.append(`${written(k, codeAt(k, i))}${sd}${c.unit ? ` ${c.unit}` : ""}`);
    });
    drawMarks();
  }

  // ---- selecting ---------------------------------------------------------------

  function selectWhere(inside) {
    const xs = codes(axis("x")), ys = codes(axis("y"));
    selected = 0;
    for (let i = 0; i < xs.length; i++) {
      const known = xs[i] !== MISSING && ys[i] !== MISSING;
      chosen[i] = known && inside(xs[i], ys[i]) ? 1 : 0;
      selected += chosen[i];
    }
    later();
  }
  function inPolygon(corners) {
    const xs = corners.map((c) => c[0]), ys = corners.map((c) => c[1]);
    const left = Math.min(...xs), right = Math.max(...xs);
    const below = Math.min(...ys), above = Math.max(...ys);
    return (x, y) => {
      if (x < left || x > right || y < below || y > above) return false;
      let inside = false; // a ray to the right crosses an odd number of edges
      for (let i = 0, j = xs.length - 1; i < xs.length; j = i++)
        if (ys[i] > y !== ys[j] > y &&
            x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i])
          inside = !inside;
      return inside;
    };
  }
  function save() {
    const list = [];
    for (let i = 0; i < chosen.length; i++) if (chosen[i]) list.push(rowOf(i));
    const text = JSON.stringify({ run: about.run, count: list.length, rows: list });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "selection.json";
    link.click();
    // Some browsers begin to read it only now.
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  // ---- controls ----------------------------------------------------------------

  function setMode(name) {
    mode = name;
    for (const one of ["pan", "lasso"])
      button(one).setAttribute("aria-pressed", String(one === name));
    canvas.classList.toggle("pan", name === "pan");
  }
  function chooseAxis(name) { view[name] = usualRange(axis(name)); hover(-1); later(); }
  function chooseColour() {
    const by = axis("colour"), counted = by === COUNT;
    limit.low.disabled = limit.high.disabled = counted;
    if (!counted) {
      colours = [quantile(by, 0.005), quantile(by, 0.995)];
      limit.low.value = written(by, colours[0]);
      limit.high.value = written(by, colours[1]);
    }
    later();
  }
  function limitColours() {
    const by = axis("colour"), [low, high] = [+limit.low.value, +limit.high.value];
    const right = Number.isFinite(low) && Number.isFinite(high) && low < high;
    for (const one of [limit.low, limit.high]) one.setAttribute("aria-invalid", String(!right));
    if (right) { colours = [codeOf(by, low), codeOf(by, high)]; later(); }
  }
  const actions = {
    pan: () => setMode("pan"),
    lasso: () => setMode("lasso"),
    closer: () => zoom(ZOOM, 0.5, 0.5),
    farther: () => zoom(1 / ZOOM, 0.5, 0.5),
    all: () => {
      for (const name of ["x", "y"]) view[name] = wholeRange(axis(name));
      later();
    },
    view: () => selectWhere((x, y) =>
      x >= view.x[0] && x <= view.x[1] && y >= view.y[0] && y <= view.y[1]),
    clear: () => selectWhere(() => false),
    save,
  };
  for (const one of box.querySelectorAll("button"))
    one.addEventListener("click", () => actions[one.dataset.do]());
  choice.x.addEventListener("change", () => chooseAxis("x"));
  choice.y.addEventListener("change", () => chooseAxis("y"));
  choice.colour.addEventListener("change", chooseColour);
  limit.low.addEventListener("change", limitColours);
  limit.high.addEventListener("change", limitColours);

  // Two fingers zoom; one, or the mouse, pans or draws a lasso.
  function pinch() {
    const [a, b] = [...fingers.values()];
    return { apart: Math.hypot(a[0] - b[0], a[1] - b[1]),
      x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 };
  }
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    const share = toShare(e), f = frame();
    fingers.set(e.pointerId, [share[0] * f.wide, share[1] * f.high]);
    cross = null;
    held = share;
    const draws = fingers.size === 1 && (mode === "lasso" || e.shiftKey);
    lasso = draws ? [[toCode("x", share[0]), toCode("y", share[1])]] : null;
  });
  canvas.addEventListener("pointermove", (e) => {
    const share = toShare(e), f = frame();
    if (!held) { cross = null; pointed = share; lookLater(); return; }
    if (fingers.size === 2) {
      const before = pinch();
      fingers.set(e.pointerId, [share[0] * f.wide, share[1] * f.high]);
      const now = pinch();
      pan((before.x - now.x) / f.wide, (before.y - now.y) / f.high);
      zoom(now.apart / Math.max(before.apart, 1), now.x / f.wide, now.y / f.high);
    } else if (lasso) {
      const far = Math.hypot((share[0] - held[0]) * f.wide, (share[1] - held[1]) * f.high);
      if (far < 3) return; // pixels: corners enough, and no more
      lasso.push([toCode("x", share[0]), toCode("y", share[1])]);
      held = share;
      drawMarks();
    } else {
      pan(held[0] - share[0], held[1] - share[1]);
      held = share;
      hover(-1);
    }
  });
  function release(e) {
    fingers.delete(e.pointerId);
    if (lasso && lasso.length > 2) selectWhere(inPolygon(lasso));
    else if (held && e.type === "pointerup") hover(nearest(...toShare(e))); // a tap
    lasso = held = null;
    drawMarks();
  }
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { if (!held && !cross) hover(-1); });

  // The particle is looked for once a frame, however often the pointer moves.
  let pointed = null;
  function lookLater() {
    requestAnimationFrame(() => {
      if (pointed) hover(nearest(...pointed));
      pointed = null;
    });
  }
  // The wheel scrolls the page until the picture was clicked.
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas && !e.ctrlKey) return;
    e.preventDefault();
    zoom(Math.exp(-e.deltaY / 500), ...toShare(e));
  }, { passive: false });

  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  canvas.addEventListener("keydown", (e) => {
    const way = ways[e.key];
    if (way && e.shiftKey) {
      const old = cross || [0.5, 0.5], step = KEY_STEP / 5;
      cross = old.map((share, k) => Math.min(1, Math.max(0, share + way[k] * step)));
      hover(nearest(...cross));
      drawMarks();
    } else if (way) pan(way[0] * KEY_STEP, way[1] * KEY_STEP);
    else if (e.key === "+" || e.key === "=") actions.closer();
    else if (e.key === "-") actions.farther();
    else if (e.key === "0") actions.all();
    else return;
    e.preventDefault();
  });

  darkPage.addEventListener("change", later);
  new ResizeObserver(later).observe(find(".picture"));
  setMode("pan");
  for (const name of ["x", "y"]) view[name] = usualRange(axis(name));
  chooseColour();
  draw();
})();
