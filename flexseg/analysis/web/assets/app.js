// Start: theme, copying, redrawing on resize, and every part once.

function startTheme() {
  const root = document.documentElement;
  const button = byId("theme");
  const label = () => {
    button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("flexseg-theme", root.dataset.theme);
    } catch {
      // Not remembered, then.
    }
    label();
  });
  label();
}

/** Copy the text of `node`; where the clipboard is closed to pages from disk, select it for the reader instead. */
async function copyText(node, status) {
  const paragraphs = [...node.querySelectorAll("p")].map((each) => each.textContent);
  try {
    await navigator.clipboard.writeText(paragraphs.length ? paragraphs.join("\n\n") : node.textContent);
    status.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(node);
    status.textContent = "Selected: copy with your keyboard.";
  }
}

/** Plots are drawn to the width that they have: again when it changes. */
function watchWidth(draw) {
  let width = innerWidth;
  let waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(draw, 100);
  });
}

startTheme();
measure();
startTable();
startPlots();
startCurves();
choose({});
if (DATA.curves.terms.length) drawCurves();
startViewer();
startRuns();
byId("copy").addEventListener("click", () => copyText(byId("methods-text"), byId("copied")));
byId("copy-bibtex").addEventListener("click", () => copyText(byId("bibtex"), byId("copied-bibtex")));
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
addEventListener("scroll", followScroll, { passive: true });
watchWidth(() => {
  measure();
  drawDots();
  drawCost();
  if (DATA.curves.terms.length) drawCurves();
});
document.documentElement.dataset.ready = "true";
