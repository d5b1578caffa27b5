// Puts figures and exercises where the page carries their data.

for (const place of document.querySelectorAll("[data-show]")) {
  const data = JSON.parse(place.querySelector("script").textContent);
  const here = document.createElement("div");
  place.append(here);
  if (place.dataset.show === "exercise") {
    EXERCISE.ask(here, data);
    continue;
  }
  FIGURE.figure(here, {
    controls: data.controls,
    chosen: data.chosen,
    seen: ranges => { for (const plot of Object.values(data.plots)) ranges.include(plot, data.arrays); },
    at: (chosen, draw) => draw(data.plots[chosen.join(",")], data.arrays),
  });
}

const themes = document.querySelector('[data-do="theme"]');
const root = document.documentElement;
const remember = (() => { try { return window.localStorage; } catch { return null; } })();
const kept = remember && remember.getItem("theme");
if (kept) root.style.colorScheme = kept;
themes.addEventListener("click", () => {
  const dark = root.style.colorScheme
    ? root.style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.style.colorScheme = dark ? "light" : "dark";
  if (remember) remember.setItem("theme", root.style.colorScheme);
});

for (const node of document.querySelectorAll(".graph a")) {
  const mark = on => {
    const graph = node.closest("svg");
    graph.classList.toggle("chosen", on);
    for (const one of graph.querySelectorAll(`[data-of~="${node.dataset.slug}"]`))
      one.classList.toggle("lit", on);
  };
  for (const kind of ["mouseenter", "focus"]) node.addEventListener(kind, () => mark(true));
  for (const kind of ["mouseleave", "blur"]) node.addEventListener(kind, () => mark(false));
}
