// Drawing on a canvas: lines, heads, glyphs and spans, for the diagram and its legend.

function sized(canvas, width, height) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

const hueOf = (kernel) => (kernel === null || kernel === undefined ? 7 : kernel % FILLS.length);

function chipOf(kernel) {
  const hue = hueOf(kernel);
  return make("span", { class: "chip", "aria-hidden": "true", style: `background:${FILLS[hue]};color:${ON_FILL[hue]}` }, String(kernel));
}

function drawLine(c, x0, y0, x1, y1, dash, ink, width) {
  c.strokeStyle = ink;
  c.lineWidth = width;
  c.setLineDash(dash || []);
  c.beginPath();
  c.moveTo(x0, y0);
  c.lineTo(x1, y1);
  c.stroke();
  c.setLineDash([]);
}

function drawHead(c, x, y, angle, head, ink) {
  c.save();
  c.translate(x, y);
  c.rotate(angle);
  c.beginPath();
  c.moveTo(-7, -4);
  c.lineTo(1, 0);
  c.lineTo(-7, 4);
  c.fillStyle = c.strokeStyle = ink;
  c.lineWidth = 1.6;
  if (head === "open") c.stroke(); else { c.closePath(); c.fill(); }
  c.restore();
}

function drawGlyph(c, glyph, x, y, size, fill, ink) {
  c.beginPath();
  if (glyph === "triangle") { c.moveTo(x, y - size * 1.15); c.lineTo(x + size * 1.1, y + size * 0.85); c.lineTo(x - size * 1.1, y + size * 0.85); c.closePath(); }
  else if (glyph === "square") c.rect(x - size * 0.9, y - size * 0.9, size * 1.8, size * 1.8);
  else if (glyph === "diamond") { c.moveTo(x, y - size * 1.25); c.lineTo(x + size * 1.1, y); c.lineTo(x, y + size * 1.25); c.lineTo(x - size * 1.1, y); c.closePath(); }
  else if (glyph === "bar") c.rect(x - size * 0.45, y - size * 1.3, size * 0.9, size * 2.6);
  else if (glyph === "cross") { c.moveTo(x - size, y - size); c.lineTo(x + size, y + size); c.moveTo(x + size, y - size); c.lineTo(x - size, y + size); }
  else c.arc(x, y, size, 0, 7);
  if (glyph !== "cross") { c.fillStyle = fill; c.fill(); }
  c.strokeStyle = ink;
  c.lineWidth = glyph === "cross" ? 2.5 : 1.4;
  c.stroke();
}

const SPAN_LOOKS = { // fill, edge
  solid: ["#5b4a8a", "#3b2e63"], soft: ["#d9d2ee", "#6a59a0"], band: ["#fdf3d0", null], hatch: ["#fff", "#933F00"],
};

function drawSpan(c, look, x, y, width, height) {
  const [fill, edge] = SPAN_LOOKS[look];
  c.fillStyle = fill;
  c.fillRect(x, y, width, height);
  if (look === "hatch") {
    c.save();
    c.beginPath();
    c.rect(x, y, width, height);
    c.clip();
    c.strokeStyle = edge;
    c.lineWidth = 1.2;
    c.beginPath();
    for (let at = x - height - ((x - height) % 6); at < x + width; at += 6) { c.moveTo(at, y + height); c.lineTo(at + height, y); }
    c.stroke();
    c.restore();
  }
  if (edge) {
    c.strokeStyle = edge;
    c.lineWidth = 1;
    c.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  }
}
