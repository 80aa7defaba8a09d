// Start: unpack what Python sent and put the player into a shadow root of its element, where the
// page's styles do not reach. The plain table stays in the element, unseen, as the last resort.

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

async function start(host) {
  if (host.shadowRoot) return;
  const root = host.attachShadow({ mode: "open" }); // the page's styles stay outside, ours inside
  try {
    const data = await unpack(host.querySelector("script[type='text/plain']").textContent);
    root.append(make("style", {}, data.css));
    host.player = new Player(host, root, data);
  } catch (problem) { // show the plain table instead, and say so
    root.replaceChildren(make("p", {}, `The player cannot start in this browser (${problem.message}). The steps as a table:`), make("slot"));
    throw problem;
  }
}

// JupyterLab hears keys before any element does, and skips those in an element with this attribute.
// Saving stays its own: without this, Ctrl S in the player would save the page, not the notebook.
const SUPPRESS = "data-lm-suppress-shortcuts";
const saves = (event) => (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
window.popcornPlayerKeys ??= (event) => event.target.closest?.(".pk-player")?.toggleAttribute(SUPPRESS, !saves(event));
window.addEventListener("keydown", window.popcornPlayerKeys, true);

const script = document.currentScript;
const hosts = script?.closest(".pk-player") ? [script.closest(".pk-player")] : document.querySelectorAll(".pk-player");
for (const host of hosts) host.ready = start(host);
