// Formulas change the height of a page after the browser has jumped to an anchor: jump again once they are typeset,
// unless the reader has moved on by then.
window.addEventListener("load", async () => {
  const moved = new AbortController();
  for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"]) {
    window.addEventListener(kind, () => moved.abort(), { once: true, passive: true, signal: moved.signal });
  }
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && !moved.signal.aborted) target.scrollIntoView({ behavior: "instant" });
  moved.abort();
});
