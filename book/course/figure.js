// Draws a figure and its controls. In a notebook Python computes each state; a built
// page carries all of them (see `FIGURES` in page.js).

const COLOURS = ["--blue", "--orange", "--green", "--purple", "--sky", "--grey"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "5 2", "1 2"];
const WIDE = 440, HIGH = 310;
const LEFT = 62, RIGHT = 14, TOP = 10, BOTTOM = 46;
const SVG = "http://www.w3.org/2000/svg";

function unpack(one) {
  if (one.values) return one.values;
  const text = atob(one.data);
  const wide = one.missing > 255 ? 2 : 1;
  const values = new Float64Array(text.length / wide);
  for (let i = 0; i < values.length; i++) {
    let code = text.charCodeAt(wide * i);
    if (wide === 2) code += 256 * text.charCodeAt(2 * i + 1);
    values[i] = code === one.missing ? NaN : one.least + one.step * code;
  }
  one.values = values;
  return values;
}

// The numbers of a mark; those of logarithmic axes are kept as logarithms.
function numbers(one, logarithmic) {
  const values = unpack(one);
  if (!logarithmic) return values;
  one.powers ??= values.map(value => Math.pow(10, value));
  return one.powers;
}

function make(name, settings, parent, text) {
  const one = parent && parent.namespaceURI === SVG || name === "svg"
    ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(settings)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  if (parent) parent.appendChild(one);
  return one;
}

// What every state seen so far needs of the axes: they stand still while one slides.
class Ranges {
  constructor() { this.panels = []; }

  include(plot, arrays) {
    plot.panels.forEach((panel, number) => {
      const now = this.panels[number] ??= {x: [Infinity, -Infinity], y: [Infinity, -Infinity]};
      const widen = (range, value) => {
        if (value < range[0]) range[0] = value;
        if (value > range[1]) range[1] = value;
      };
      for (const mark of panel.marks) {
        if (mark.kind === "heat") {
          mark.extent.forEach((value, place) => widen(place < 2 ? now.x : now.y, value));
          continue;
        }
        const x = numbers(arrays[mark.x], panel.logX), y = numbers(arrays[mark.y], panel.logY);
        for (let i = 0; i < x.length; i++) {
          if (isNaN(x[i]) || isNaN(y[i])) continue;
          widen(now.x, x[i]);
          widen(now.y, y[i]);
        }
        if (mark.kind === "bars") {
          if (!panel.logY) widen(now.y, 0);
          const half = x.length > 1 ? (x[1] - x[0]) / 2 : 0.5;
          widen(now.x, x[0] - half);
          widen(now.x, x[x.length - 1] + half);
        }
      }
    });
  }

  of(panel, number) {
    const heat = panel.marks.some(mark => mark.kind === "heat");
    const padded = (range, given, logarithmic) => {
      if (given) return given.slice();
      let [low, high] = range;
      if (!(high >= low)) [low, high] = [0, 1];
      if (high === low) [low, high] = logarithmic ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
      if (heat) return [low, high];
      const pad = 0.04;
      if (logarithmic) {
        const factor = Math.pow(high / low, pad);
        return [low / factor, high * factor];
      }
      return [low - pad * (high - low), high + pad * (high - low)];
    };
    const seen = this.panels[number];
    const x = padded(seen.x, panel.xRange, panel.logX);
    let y = padded(seen.y, panel.yRange, panel.logY);
    // An image whose row 0 is at the top has an axis that points down.
    const down = panel.marks.find(mark => mark.kind === "heat" && mark.extent[2] > mark.extent[3]);
    if (down && !panel.yRange) y = [y[1], y[0]];
    return {x, y};
  }
}

function ticks(low, high, logarithmic) {
  if (low > high) [low, high] = [high, low];
  const found = [];
  if (logarithmic) {
    const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
    const step = Math.max(1, Math.ceil((last - first) / 5));
    for (let power = first; power <= last; power += step) found.push(Math.pow(10, power));
    if (found.length > 1) return found;
    found.length = 0;
  }
  const rough = (high - low) / 5;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = power * [1, 2, 5, 10].find(one => one * power >= rough * 0.999);
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

function written(value, all) {
  const sizes = all.map(Math.abs).filter(one => one > 0);
  const most = Math.max(...sizes);
  if (Math.abs(value) < 1e-9 * most) return "0";
  if (most >= 1e5 || most < 1e-3 || most / Math.min(...sizes) > 1e4) {
    const [digits, power] = value.toExponential(1).split("e");
    const plain = digits.replace(/\.0$/, "");
    return (plain === "1" ? "" : plain + "×") + "10" + [...String(Number(power))]
      .map(one => "⁰¹²³⁴⁵⁶⁷⁸⁹"["0123456789".indexOf(one)] ?? "⁻").join("");
  }
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

function heatPicture(mark, values, ink) {
  const columns = mark.columns, rows = values.length / columns;
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const picture = canvas.getContext("2d").createImageData(columns, rows);
  const [low, high] = mark.limits;
  const blue = [0, 114, 178], orange = [213, 94, 0];
  for (let i = 0; i < values.length; i++) {
    const share = Math.min(1, Math.max(0, (values[i] - low) / (high - low || 1)));
    let colour = [255 * share, 255 * share, 255 * share];
    if (mark.signed) {
      const far = Math.abs(2 * share - 1), end = share < 0.5 ? blue : orange;
      colour = end.map(one => 255 + (one - 255) * far);
    }
    for (let k = 0; k < 3; k++) picture.data[4 * i + k] = colour[k];
    picture.data[4 * i + 3] = isNaN(values[i]) ? 0 : 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas.toDataURL();
}

function drawPanel(parent, panel, number, arrays, ranges) {
  const frame = make("figure", {class: "panel"}, parent);
  if (panel.title) make("figcaption", {}, frame, panel.title);
  const named = panel.marks.filter(mark => mark.label);
  const drawn = panel.marks.filter(mark => mark.kind !== "heat");
  const style = mark => drawn.indexOf(mark) % COLOURS.length;
  if (named.length) {
    const legend = make("ul", {class: "legend"}, frame);
    for (const mark of named) {
      const entry = make("li", {}, legend);
      const swatch = make("svg", {viewBox: "0 0 26 10", width: 26, height: 10, "aria-hidden": true}, entry);
      const paint = `var(${COLOURS[style(mark)]})`;
      if (mark.kind === "points") make("circle", {cx: 13, cy: 5, r: 4, fill: paint}, swatch);
      else if (mark.kind === "bars") make("rect", {x: 4, y: 0, width: 18, height: 10, fill: paint}, swatch);
      else make("line", {x1: 0, x2: 26, y1: 5, y2: 5, stroke: paint, "stroke-width": 2.5,
        "stroke-dasharray": mark.dashed ? "4 4" : DASHES[style(mark)]}, swatch);
      make("span", {}, entry, mark.label);
    }
  }
  const svg = make("svg", {viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img",
    "aria-label": [panel.title, panel.y && panel.x ? `${panel.y} against ${panel.x}` : ""].filter(Boolean).join(": ")}, frame);
  const {x, y} = ranges.of(panel, number);
  let box = {left: LEFT, right: WIDE - RIGHT, top: TOP, bottom: HIGH - BOTTOM};
  if (panel.equal) {
    const wide = Math.abs(x[1] - x[0]), high = Math.abs(y[1] - y[0]);
    const unit = Math.min((box.right - box.left) / wide, (box.bottom - box.top) / high);
    const spareX = box.right - box.left - unit * wide, spareY = box.bottom - box.top - unit * high;
    box = {left: box.left + spareX / 2, right: box.right - spareX / 2,
      top: box.top + spareY / 2, bottom: box.bottom - spareY / 2};
  }
  const place = (value, range, from, to, logarithmic) => logarithmic
    ? from + (to - from) * Math.log(value / range[0]) / Math.log(range[1] / range[0])
    : from + (to - from) * (value - range[0]) / (range[1] - range[0]);
  const atX = value => place(value, x, box.left, box.right, panel.logX);
  const atY = value => place(value, y, box.bottom, box.top, panel.logY);

  const id = `clip${Math.random().toString(36).slice(2)}`;
  const clip = make("clipPath", {id}, make("defs", {}, svg));
  make("rect", {x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top}, clip);
  const grid = make("g", {class: "grid"}, svg);
  const inside = make("g", {"clip-path": `url(#${id})`}, svg);
  const alongX = ticks(x[0], x[1], panel.logX), alongY = ticks(y[0], y[1], panel.logY);
  for (const one of alongX) {
    make("line", {x1: atX(one), x2: atX(one), y1: box.top, y2: box.bottom}, grid);
    make("text", {x: atX(one), y: box.bottom + 17, "text-anchor": "middle"}, grid, written(one, alongX));
  }
  for (const one of alongY) {
    make("line", {x1: box.left, x2: box.right, y1: atY(one), y2: atY(one)}, grid);
    make("text", {x: box.left - 6, y: atY(one) + 4, "text-anchor": "end"}, grid, written(one, alongY));
  }
  make("text", {class: "axis", x: (box.left + box.right) / 2, y: HIGH - 8, "text-anchor": "middle"}, svg, panel.x);
  // Close to a square picture too, which stands in the middle.
  make("text", {class: "axis", transform: `translate(${box.left - LEFT + 14} ${(box.top + box.bottom) / 2}) rotate(-90)`,
    "text-anchor": "middle"}, svg, panel.y);

  for (const mark of panel.marks) {
    if (mark.kind === "heat") {
      const [left, right, bottom, top] = mark.extent;
      const picture = make("image", {x: Math.min(atX(left), atX(right)), y: Math.min(atY(top), atY(bottom)),
        width: Math.abs(atX(right) - atX(left)), height: Math.abs(atY(bottom) - atY(top)),
        preserveAspectRatio: "none", class: "heat"}, inside);
      picture.setAttribute("href", heatPicture(mark, unpack(arrays[mark.image])));
      continue;
    }
    const across = numbers(arrays[mark.x], panel.logX), up = numbers(arrays[mark.y], panel.logY);
    const paint = `var(${COLOURS[style(mark)]})`;
    if (mark.kind === "line") {
      let path = "", pen = "M";
      for (let i = 0; i < across.length; i++) {
        const bad = isNaN(across[i]) || isNaN(up[i]);
        if (bad) { pen = "M"; continue; }
        path += `${pen}${atX(across[i]).toFixed(1)} ${atY(up[i]).toFixed(1)}`;
        pen = "L";
      }
      make("path", {d: path, fill: "none", stroke: paint, "stroke-width": 2,
        "stroke-dasharray": mark.dashed ? "4 4" : DASHES[style(mark)], "stroke-linejoin": "round"}, inside);
    } else if (mark.kind === "points") {
      const size = across.length > 400 ? 1.6 : across.length > 60 ? 2.6 : 4;
      for (let i = 0; i < across.length; i++) {
        if (isNaN(across[i]) || isNaN(up[i])) continue;
        make("circle", {cx: atX(across[i]).toFixed(1), cy: atY(up[i]).toFixed(1), r: size, fill: paint}, inside);
      }
    } else {
      const step = across.length > 1 ? Math.abs(atX(across[1]) - atX(across[0])) : 30;
      const floor = panel.logY ? box.bottom : atY(0);
      for (let i = 0; i < across.length; i++) {
        if (isNaN(up[i])) continue;
        make("rect", {x: atX(across[i]) - 0.44 * step, width: 0.88 * step,
          y: Math.min(atY(up[i]), floor), height: Math.abs(atY(up[i]) - floor), fill: paint, opacity: 0.85}, inside);
      }
    }
  }
}

// `source`: controls, chosen, seen(ranges), at(chosen, draw).
function figure(el, source) {
  el.classList.add("explore");
  const ranges = new Ranges();
  source.seen(ranges);
  const knobs = make("div", {class: "knobs"}, el);
  const panels = make("div", {class: "panels"}, el);
  const says = make("p", {class: "says", "aria-live": "polite"}, el);
  const chosen = [...source.chosen];
  const draw = (plot, arrays) => {
    ranges.include(plot, arrays);
    panels.replaceChildren();
    plot.panels.forEach((panel, number) => drawPanel(panels, panel, number, arrays, ranges));
    says.textContent = plot.says;
  };
  source.controls.forEach((control, number) => {
    const label = make("label", {class: "knob"}, knobs);
    make("span", {}, label, control.label);
    const value = () => control.values[chosen[number]];
    if (control.kind === "choice") {
      const menu = make("select", {}, label);
      control.values.forEach((one, place) => make("option", {value: place}, menu, one));
      menu.value = chosen[number];
      menu.addEventListener("change", () => { chosen[number] = Number(menu.value); source.at([...chosen], draw); });
      return;
    }
    const slider = make("input", {type: "range", min: 0, max: control.values.length - 1, step: 1}, label);
    slider.value = chosen[number];
    const shown = make("output", {}, label, String(value()));
    slider.setAttribute("aria-valuetext", String(value()));
    slider.addEventListener("input", () => {
      chosen[number] = Number(slider.value);
      shown.textContent = String(value()).replace("-", "−");
      slider.setAttribute("aria-valuetext", String(value()));
      source.at([...chosen], draw);
    });
  });
  source.at([...chosen], draw);
}

function render({model, el}) {
  let draw = null;
  const show = () => { const {plot, arrays} = model.get("state"); if (draw) draw(plot, arrays); };
  figure(el, {
    controls: model.get("controls"),
    chosen: model.get("chosen"),
    seen: () => {},
    at: (chosen, drawing) => {
      const first = draw === null;
      draw = drawing;
      if (first) { show(); return; }
      model.set("chosen", chosen);
      model.save_changes();
    },
  });
  model.on("change:state", show);
}

export default {render};
