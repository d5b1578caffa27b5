// A map, as its surface at a level that a slider moves.
const isosurface = (function () {
  "use strict";

  // The surface net of a density (Gibson, 1998), as surface.py makes it: every cell of
  // eight voxels that the surface passes has one corner, in the mean of where the cell's
  // edges cross it; every crossed edge has a square of the four cells about it. Corners
  // are x, y, z in voxels from the first; outside of the box there is nothing.
  function net(values, shape, level) {
    const [nz, ny, nx] = shape, wide = nx + 2, area = (ny + 2) * wide;
    const height = new Float32Array((nz + 2) * area).fill(-1);
    for (let z = 0, from = 0; z < nz; z++)
      for (let y = 0; y < ny; y++)
        for (let x = 0, to = (z + 1) * area + (y + 1) * wide + 1; x < nx; x++)
          height[to++] = values[from++] - level;
    const steps = [area, wide, 1], number = new Int32Array(height.length).fill(-1);
    const corners = [], triangles = [];
    const offsets = [0, 1, wide, wide + 1, area, area + 1, area + wide, area + wide + 1];
    for (let z = 0; z <= nz; z++)
      for (let y = 0; y <= ny; y++)
        for (let x = 0; x <= nx; x++) {
          const cell = z * area + y * wide + x;
          let inside = 0;
          for (const offset of offsets) if (height[cell + offset] > 0) inside++;
          if (inside === 0 || inside === 8) continue;
          let px = 0, py = 0, pz = 0, crossed = 0;
          for (let axis = 0; axis < 3; axis++)
            for (let k = 0; k < 4; k++) {
              const b = k >> 1, c = k & 1;
              const at = axis === 0 ? [0, b, c] : axis === 1 ? [b, 0, c] : [b, c, 0];
              const from = cell + at[0] * area + at[1] * wide + at[2];
              const begin = height[from], end = height[from + steps[axis]];
              if ((begin > 0) === (end > 0)) continue;
              at[axis] = begin / (begin - end);
              pz += at[0]; py += at[1]; px += at[2]; crossed++;
            }
          number[cell] = corners.length / 3;
          corners.push(x - 1 + px / crossed, y - 1 + py / crossed, z - 1 + pz / crossed);
        }
    for (let axis = 0; axis < 3; axis++) {
      const along = steps[axis], second = steps[(axis + 1) % 3];
      const third = steps[(axis + 2) % 3];
      for (let at = 0; at + along < height.length; at++) {
        const leaves = height[at] > 0;
        if (leaves === height[at + along] > 0) continue;
        // Counterclockwise about the axis; in x, y, z that is seen from inside.
        const a = number[at - second - third], b = number[at - third];
        const c = number[at], d = number[at - second];
        if (leaves) triangles.push(c, b, a, d, c, a);
        else triangles.push(b, c, d, a, b, d);
      }
    }
    return { corners: Float32Array.from(corners), triangles: Uint32Array.from(triangles) };
  }

  function start() {
    const box = document.getElementById("isosurface");
    const about = JSON.parse(document.getElementById("isosurface-about").textContent);
    const codes = surfaces.decode("isosurface-density", Uint16Array);
    const values = Float32Array.from(codes, (code) => about.least + about.step * code);
    const slider = box.querySelector(".level"), reading = box.querySelector(".reading");
    const count = (value) => Number(value.toPrecision(3)).toLocaleString("en");
    let made = null, at = null;

    // What is above a level: between those of a table, a straight line.
    function enclosed(sigma) {
      const { from, to, volumes } = about.enclosed;
      const place = ((sigma - from) / (to - from)) * (volumes.length - 1);
      const low = Math.max(0, Math.min(volumes.length - 2, Math.floor(place)));
      return volumes[low] + (place - low) * (volumes[low + 1] - volumes[low]);
    }

    function current() {
      const sigma = +slider.value;
      if (sigma !== at) {
        const level = about.mean + sigma * about.sigma;
        const found = net(values, about.shape, level), { corners } = found;
        for (let i = 0; i < corners.length; i++)
          corners[i] = about.origin[i % 3] + about.spacing[i % 3] * corners[i];
        made = surfaces.mesh(corners, found.triangles);
        at = sigma;
        const volume = Math.max(0, enclosed(sigma));
        slider.nextElementSibling.textContent = `${sigma.toFixed(1)} \u03c3`;
        reading.textContent = `Density ${level.toPrecision(3)}. ` +
          `${count(volume)} \u00c5\u00b3 of the map are above it: ` +
          `as much as ${count((volume * about.dalton) / 1000)} kDa of protein.`;
      }
      return { surface: made, moving: false };
    }
    const later = surfaces.view(box, about.reach, current, about.chain);
    box.querySelector(".upright").addEventListener("click", () => {
      slider.value = about.level; later();
    });
  }

  if (document.getElementById("isosurface")) start();
  return { net };
})();
