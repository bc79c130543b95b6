// Draws the figures where their still pictures stand; everything else of the page works without it.
"use strict";
const loader = { load: () => Promise.reject(new Error("this page loads nothing")) };
const views = new Map();
for (const [place, spec] of Object.entries(JSON.parse(document.getElementById("charts").textContent))) {
  const home = document.getElementById(place), still = home.innerHTML;
  // Expressions are interpreted, not evaluated as code, so that the page's policy can forbid evaluation.
  vegaEmbed(home, spec, { renderer: "svg", loader, actions: false, ast: true })
    .then((made) => views.set(place, made.view))
    .catch(() => { home.innerHTML = still; });
}
for (const menu of document.querySelectorAll("select[data-parameter]")) {
  menu.addEventListener("change", () => {
    for (const [place, view] of views)
      if (place.startsWith(`f${menu.dataset.section}-`)) view.signal(menu.dataset.parameter, menu.value).runAsync();
  });
}
for (const button of document.querySelectorAll("button[data-figure]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const large = button.closest("figure").classList.toggle("large");
    button.setAttribute("aria-pressed", String(large));
  });
}
// Paper cannot be opened: what is folded is printed unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
