/* A cell of the block map: a base, and on it what is to be seen, as high as its share of the cell. Each kind has a pattern too. */

export const KINDS = {
  written: "Written just now",
  out_of_sync: "Out of sync",
  swept: "Being swept",
  staged: "Staged",
  unreadable: "Unreadable",
  free: "Free",
};

export const BASES = { insync: "In sync", unknown: "Unknown" };

const VARIABLES = {
  insync: "map-insync",
  free: "map-free",
  freeLine: "map-free-line",
  out_of_sync: "map-out",
  written: "map-written",
  swept: "map-swept",
  staged: "map-staged",
  unreadable: "map-unreadable",
  unknown: "unknown",
  unknownTint: "unknown-tint",
  ink: "map-ink",
  cursor: "map-cursor",
  background: "map-bg",
};

/** The colours of the page as they are now: light or dark. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(Object.entries(VARIABLES).map(([key, name]) => [key, style.getPropertyValue(`--${name}`).trim()]));
}

/** What a cell is drawn as. `cells`: shares from 0 to 255 by kind; a kind that is not known is missing. */
export function lookOf(cells, index) {
  const share = (kind) => (cells[kind] ? cells[kind][index] / 255 : 0);
  const out = share("out_of_sync");
  let main = null;
  if (share("unreadable")) main = ["unreadable", share("unreadable")];
  else if (share("swept")) main = ["swept", share("swept")];
  else if (share("staged") && share("staged") >= out) main = ["staged", share("staged")];
  else if (out) main = ["out_of_sync", out];
  const base = !cells.out_of_sync ? "unknown" : share("free") === 1 ? "free" : "insync";
  return { base, main, written: share("written") };
}

export function drawCell(pen, x, y, size, look, colours) {
  base(pen, x, y, size, look.base, colours);
  if (look.main) pattern(pen, x, y, size, look.main[0], look.main[1], colours);
  if (look.written) {
    const inner = Math.max(2, Math.round(size * (0.3 + 0.25 * look.written)));
    const gap = Math.round((size - inner) / 2);
    pen.fillStyle = colours.written;
    pen.fillRect(x + gap, y + gap, inner, inner);
    pen.strokeStyle = colours.background;
    pen.lineWidth = 1;
    pen.strokeRect(x + gap - 0.5, y + gap - 0.5, inner + 1, inner + 1);
  }
}

function base(pen, x, y, size, kind, colours) {
  if (kind === "insync") {
    pen.fillStyle = colours.insync;
    pen.fillRect(x, y, size, size);
    return;
  }
  const [fill, line] = kind === "free" ? [colours.free, colours.freeLine] : [colours.unknownTint, colours.unknown];
  pen.fillStyle = fill;
  pen.fillRect(x, y, size, size);
  pen.strokeStyle = line;
  pen.lineWidth = 1;
  pen.setLineDash(kind === "unknown" ? [2, 2] : []);
  pen.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
  pen.setLineDash([]);
}

function pattern(pen, x, y, size, kind, share, colours) {
  const height = Math.max(Math.min(3, size), Math.round(size * share));
  const top = y + size - height;
  pen.save();
  pen.beginPath();
  pen.rect(x, top, size, height);
  pen.clip();
  pen.fillStyle = colours[kind];
  pen.fillRect(x, top, size, height);
  pen.strokeStyle = pen.fillStyle = colours.ink;
  pen.lineWidth = 1;
  pen.beginPath();
  if (kind === "out_of_sync") {
    for (let at = -size; at < size; at += 4) {
      pen.moveTo(x + at, y + size);
      pen.lineTo(x + at + size, y);
    }
  } else if (kind === "swept") {
    for (let at = 2.5; at < size; at += 3) {
      pen.moveTo(x, y + at);
      pen.lineTo(x + size, y + at);
    }
  } else if (kind === "staged") {
    for (let row = 2; row < size; row += 4) for (let column = 2; column < size; column += 4) pen.fillRect(x + column, y + row, 1.5, 1.5);
  } else if (kind === "unreadable") {
    pen.lineWidth = 1.6;
    pen.moveTo(x + 2, y + 2);
    pen.lineTo(x + size - 2, y + size - 2);
    pen.moveTo(x + size - 2, y + 2);
    pen.lineTo(x + 2, y + size - 2);
  }
  pen.globalAlpha = kind === "unreadable" ? 1 : 0.65;
  pen.stroke();
  pen.restore();
}

/** A canvas for the legend: one cell of a kind. */
export function swatch(kind) {
  const canvas = document.createElement("canvas");
  canvas.className = "swatch";
  canvas.setAttribute("aria-hidden", "true");
  const scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = 16 * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const isBase = kind === "free" || kind in BASES;
  const look = { base: isBase ? kind : "insync", main: null, written: kind === "written" ? 1 : 0 };
  if (!isBase && kind !== "written") look.main = [kind, 1];
  drawCell(pen, 0, 0, 16, look, palette());
  return canvas;
}
