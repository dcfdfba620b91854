// Formulas and fonts change the height of a page after the browser has jumped to an anchor: stay at the anchor for the
// first seconds, unless the reader moves on.
window.addEventListener("DOMContentLoaded", () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const observer = new ResizeObserver(() => target.scrollIntoView({ behavior: "instant" }));
  const stop = () => observer.disconnect();
  for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) {
    window.addEventListener(kind, stop, { once: true, passive: true });
  }
  observer.observe(document.body);
  window.addEventListener("load", () => setTimeout(stop, 10000));
});
