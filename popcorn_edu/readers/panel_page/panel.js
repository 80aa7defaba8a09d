// Keys pressed in the panel are the panel's: JupyterLab would take letters and arrows that are
// meant for a button or a list as commands for its cells.

(() => {
  const here = document.currentScript.parentElement;
  const mark = () => {
    const panel = here.isConnected && here.closest(".pk-panel");
    if (panel) panel.dataset.lmSuppressShortcuts = "true";
    else requestAnimationFrame(mark);
  };
  mark();
})();
