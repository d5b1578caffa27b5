// Maps along axes, as surfaces that a slider for each axis moves.
(function () {
  "use strict";
  const box = document.getElementById("volumes");
  const about = JSON.parse(document.getElementById("volumes-about").textContent);
  const labels = [...box.querySelectorAll("label.axis")];
  const sliders = labels.map((label) => label.querySelector("input"));
  const button = box.querySelector(".play");
  let shown = 0, playing = null;

  const meshes = new Map();
  function meshOf(axis, frame) {
    const name = `${axis}-${frame}`;
    if (!meshes.has(name)) {
      const { least, step } = about.axes[axis].frames[frame];
      const codes = surfaces.decode(`volumes-corners-${name}`, Uint16Array);
      meshes.set(name, surfaces.mesh(
        Float32Array.from(codes, (code) => least + step * code),
        surfaces.decode(`volumes-triangles-${name}`, Uint16Array)));
    }
    return meshes.get(name);
  }

  function current() {
    sliders.forEach((slider, k) => {
      const { at, unit } = about.axes[k], place = at[+slider.value];
      const text = `${place}${unit ? ` ${unit}` : ""}`;
      slider.nextElementSibling.textContent = text;
      slider.setAttribute("aria-valuetext", text);
      labels[k].classList.toggle("shown", k === shown);
    });
    return { surface: meshOf(shown, +sliders[shown].value), moving: playing !== null };
  }
  const later = surfaces.view(box, about.reach, current);

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
})();
