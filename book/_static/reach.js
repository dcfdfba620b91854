// What is wider than its place scrolls; a reader without a mouse or a touch screen gets there with the tab key, and
// scrolls with the arrows.
const WIDE = [
  "mjx-container[display='true']",
  "div.math",
  ".pst-scrollable-table-container",
  ".cell_output .output",
  ".highlight pre",
  ".cell_output pre",
  ".code-page pre",
  "figure > a.image-reference",
].join(", ");

// A height that the browser rounds down makes a formula scroll upwards by a pixel: the keyboard reaches it, too.
function reachTall() {
  for (const formula of document.querySelectorAll("mjx-container[display='true']:not([tabindex])")) {
    if (formula.scrollHeight > formula.clientHeight) formula.tabIndex = 0;
  }
}

function markWide() {
  reachTall();
  for (const item of document.querySelectorAll(WIDE)) {
    const scrolls = item.scrollWidth > item.clientWidth + 1 && getComputedStyle(item).overflowX !== "visible";
    if (scrolls && !item.hasAttribute("tabindex")) {
      item.tabIndex = 0;
      item.dataset.wide = "";
      if (!item.hasAttribute("role")) {
        item.setAttribute("role", "group");
        item.setAttribute("aria-label", "scrolls sideways");
      }
    } else if (!scrolls && "wide" in item.dataset) {
      item.removeAttribute("tabindex");
      delete item.dataset.wide;
    }
  }
}

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  markWide();
  // Fonts that arrive late and parts of the page that open beside the text change widths, too.
  document.fonts?.ready.then(markWide);
  const text = document.querySelector("article") ?? document.body;
  new ResizeObserver(markWide).observe(text);
  window.addEventListener("resize", markWide);
  document.addEventListener("toggle", markWide, true); // code that is unfolded
  document.addEventListener("click", () => setTimeout(markWide, 300));
});

// The bibliography is a list by role, and the anchors between its entries are no items of it.
window.addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll(".citation-list[role='list']")) list.removeAttribute("role");
  // The bars over folded code say what it makes: that is their name, not "Toggle hidden content".
  for (const bar of document.querySelectorAll("details.hide > summary[aria-label]")) bar.removeAttribute("aria-label");
  // The arrow that unfolds a part of the sidebar has no text.
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary summary:not([aria-label])")) {
    const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
    arrow.setAttribute("aria-label", `Pages of ${page}`);
  }
});
