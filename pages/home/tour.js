// Three steps for a first visit. The browser keeps how many have been seen; where it keeps nothing, they come again.

const SEEN = "iwae.tour.seen";
const LATER = 300; // milliseconds: the page may still be drawn, or the sidebar be opened

export default function ({ data, parentElement }) {
  const { steps } = data;
  let step = seen(); // neither the element nor this file outlives a run of the page
  const tour = parentElement.querySelector(".tour");
  let marked = null;
  let timer = null;

  const show = () => {
    unmark();
    tour.hidden = step >= steps.length;
    if (tour.hidden) return;
    tour.querySelector("p").textContent = `${step + 1} of ${steps.length}: ${steps[step].text}`;
    tour.querySelector(".next").textContent = step + 1 < steps.length ? "Next" : "Done";
    mark();
  };
  const mark = () => {
    timer = setTimeout(mark, LATER);
    const found = steps[step].targets.map((target) => document.querySelector(target)).find(onScreen);
    if (found === marked) return;
    outline("");
    marked = found;
    outline(`3px solid ${getComputedStyle(tour).getPropertyValue("--st-primary-color")}`);
    if (step) marked?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  };
  const outline = (value) => {
    if (marked) Object.assign(marked.style, { outline: value, outlineOffset: value && "4px" });
  };
  const unmark = () => {
    clearTimeout(timer);
    outline("");
    marked = null;
  };
  const go = (to) => {
    step = to;
    keep(step);
    show();
  };

  tour.querySelector(".next").onclick = () => go(step + 1);
  tour.querySelector(".dismiss").onclick = () => go(steps.length);
  tour.onkeydown = (event) => {
    if (event.key === "Escape") go(steps.length);
  };
  show();
  return unmark;
}

// A closed sidebar lies to the left of the window.
function onScreen(element) {
  return element?.getBoundingClientRect().right > 0;
}

function seen() {
  try {
    return Number(localStorage.getItem(SEEN));
  } catch {
    return 0;
  }
}

function keep(step) {
  try {
    localStorage.setItem(SEEN, step);
  } catch {} // a private window
}
