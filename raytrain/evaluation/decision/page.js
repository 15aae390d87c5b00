"use strict";
for (const list of document.querySelectorAll(".flips")) {
  const search = list.querySelector("input"), kind = list.querySelector(".kind"), suite = list.querySelector(".suite");
  const flips = [...list.querySelectorAll("details[data-kind]")], count = list.querySelector(".count");
  const texts = flips.map((one) => one.textContent.toLowerCase());
  const show = () => {
    let shown = 0;
    flips.forEach((one, i) => {
      const fits = (!kind.value || one.dataset.kind === kind.value) && (!suite.value || one.dataset.suite === suite.value)
        && texts[i].includes(search.value.toLowerCase());
      one.hidden = !fits;
      shown += fits;
    });
    count.textContent = shown + " of " + flips.length + " shown";
  };
  for (const one of [search, kind, suite]) one.addEventListener("input", show);
  list.querySelector(".tools").hidden = false;
  show();
}
addEventListener("beforeprint", () => document.querySelectorAll("details:not([data-kind]):not(.raw)").forEach((one) => { one.open = true; }));
