// Draws the charts of one block. BokehJS is unpacked once for a page, by whichever block brings it;
// a block without it waits until another one has.

(() => {
  const host = document.currentScript.closest(".pk-charts");
  const page = (window.popcornCharts ??= { drawn: [], libraries: {} });
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));

  async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  async function load(packed) {
    const script = document.createElement("script");
    script.textContent = await unpack(packed.textContent);
    document.head.append(script);
    script.remove();
  }

  function bokeh(version) {
    const library = (page.libraries[version] ??= {});
    library.ready ??= new Promise((resolve, reject) => Object.assign(library, { resolve, reject }));
    const packed = host.querySelector(".pk-bokeh");
    if (packed && !library.asked) {
      library.asked = true;
      const loaded = window.Bokeh?.[version] ? Promise.resolve() : load(packed);
      loaded.then(() => {
        window.Bokeh[version].set_log_level("warn");
        library.resolve(window.Bokeh[version]);
      }).catch(library.reject);
    }
    return library.ready;
  }

  // What a block held that stood in this place before is freed.
  function free(place) {
    for (const { host: old, views } of page.drawn.filter((one) => place && one.place === place && !one.host.isConnected)) {
      for (const view of views) {
        for (const root of [...view.roots]) {
          const { documents } = page.bokeh, at = documents.indexOf(root.model.document);
          if (at >= 0) documents.splice(at, 1);
        }
        view.clear();
      }
      page.drawn = page.drawn.filter((one) => one.host !== old);
    }
  }

  async function draw() {
    const canvases = [...host.querySelectorAll(".pk-canvas")];
    try {
      const items = JSON.parse(host.querySelector("script[type='application/json']").textContent);
      const Bokeh = (page.bokeh = await bokeh(BOKEH_VERSION));
      while (!host.isConnected || !host.clientWidth) await frame(); // drawn when there is room
      free(host.dataset.place);
      const views = [];
      for (const [n, item] of items.entries()) views.push(await Bokeh.embed.embed_item(item, canvases[n]));
      page.drawn.push({ host, views, place: host.dataset.place });
      host.dataset.drawn = items.length;
    } catch (problem) {
      for (const canvas of canvases) canvas.innerHTML = "<p>The chart cannot be drawn in this browser; its table is below.</p>";
      throw problem;
    }
  }
  draw();
})();
