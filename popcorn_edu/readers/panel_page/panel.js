// Keys pressed in the panel are the panel's: JupyterLab would take letters and arrows that are
// meant for a button or a list as commands for its cells. Only saving (Ctrl S) stays its own.
// And what the panel says is read aloud.

(() => {
  const here = document.currentScript.parentElement;
  const SUPPRESS = "data-lm-suppress-shortcuts";

  const start = () => {
    const panel = here.isConnected && here.closest(".pk-panel");
    const message = panel && panel.querySelector(".pk-message .widget-html-content");
    if (panel) panel.setAttribute(SUPPRESS, "true");
    if (message) message.setAttribute("role", "status");
    else requestAnimationFrame(start);
  };
  start();

  window.popcornKeys ??= (event) => { // before anybody else hears of the key
    const panel = event.target.closest?.(".pk-panel");
    if (!panel) return;
    const saves = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
    panel.toggleAttribute(SUPPRESS, !saves);
  };
  window.addEventListener("keydown", window.popcornKeys, true);
})();
