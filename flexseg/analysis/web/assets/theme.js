// Sets the colours before anything is drawn: the reader's last choice, else what the system prefers.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("flexseg-theme");
  } catch {
    // Storage may be forbidden for a page that was opened from disk.
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}
