// Two players under one clock: whichever moves, the other follows to the same time.
(async () => {
  const section = document.currentScript.closest(".pk-compare");
  const { times, first } = JSON.parse(section.querySelector("script[type='application/json']").textContent);
  const hosts = [...section.querySelectorAll(".pk-player")];
  await Promise.all(hosts.map((host) => host.ready));
  const output = section.querySelector("output");
  const moments = [...new Set(times.flat())].sort((a, b) => a - b);
  let now = -1; // the time that both show; before the first record it is -1
  let moving = false;

  const upTo = (list, time) => { // how many records there are up to this time
    let low = 0, high = list.length;
    while (low < high) { const middle = (low + high) >> 1; if (list[middle] <= time) low = middle + 1; else high = middle; }
    return low;
  };
  const show = (time, leader = null) => {
    now = time;
    moving = true;
    hosts.forEach((host, side) => { if (host !== leader) host.popcorn.go(upTo(times[side], time)); });
    moving = false;
    output.textContent = time < 0 ? "before the first record" : `both at ${time.toLocaleString("en")} ns`;
  };
  const step = (by) => {
    const at = upTo(moments, now) - 1 + by;
    show(at < 0 ? -1 : moments[Math.min(at, moments.length - 1)]);
  };
  const toFirst = () => {
    if (first === null) { output.textContent = "there is no difference"; return; }
    hosts.forEach((host, side) => { moving = true; host.popcorn.go(Math.min(first + 1, times[side].length)); moving = false; });
    now = Math.max(...times.map((list) => list[Math.min(first, list.length - 1)] ?? 0));
    output.textContent = `record ${first}: the first that differs`;
  };
  const actions = { back: () => step(-1), next: () => step(1), first: toFirst };
  section.querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", actions[button.dataset.do]));
  section.addEventListener("keydown", (event) => {
    if (event.key === "c" && !event.ctrlKey && !event.metaKey && !event.altKey && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.composedPath()[0].tagName)) {
      event.preventDefault();
      toFirst();
    }
  }, true); // before the players, which keep their keys to themselves
  hosts.forEach((host, side) => host.addEventListener("pk-went", () => {
    if (moving) return;
    const n = host.popcorn.n;
    show(n ? times[side][n - 1] : -1, host);
  }));
  section.compare = { get now() { return now; }, show, step, toFirst };
  show(-1);
})();
