/* The part of a volume that the block map shows: a grid of cells, each a power of two of blocks. Numbers in, numbers out. */

export const CELLS_MAX = 4096;

export class MapWindow {
  /** All of the volume, in `columns` times `rows` cells. */
  constructor(sizeBytes, blockBytes, columns, rows) {
    Object.assign(this, { sizeBytes, blockBytes, columns, rows });
    this.power = this.widest;
    this.row = 0;
  }

  get capacity() {
    return this.columns * this.rows;
  }

  get blocks() {
    return Math.ceil(this.sizeBytes / this.blockBytes);
  }

  /** log2 of the blocks of a cell with which all of the volume is shown. */
  get widest() {
    return Math.max(0, Math.ceil(Math.log2(this.blocks / this.capacity)));
  }

  get cellBytes() {
    return this.blockBytes * 2 ** this.power;
  }

  get start() {
    return this.row * this.columns * this.cellBytes;
  }

  get end() {
    return Math.min(this.start + this.capacity * this.cellBytes, this.sizeBytes);
  }

  get isWhole() {
    return this.start === 0 && this.end === this.sizeBytes;
  }

  get isDeepest() {
    return this.power === 0;
  }

  /** How many cells of the grid lie on the volume. */
  get count() {
    return Math.ceil((this.end - this.start) / this.cellBytes);
  }

  offsetOf(cell) {
    return this.start + cell * this.cellBytes;
  }

  cellOf(offset) {
    return Math.min(Math.max(Math.floor((offset - this.start) / this.cellBytes), 0), this.count - 1);
  }

  get #lastRow() {
    return Math.max(0, Math.ceil(this.sizeBytes / this.cellBytes / this.columns) - this.rows);
  }

  /** Steps of a factor of two into the volume, or out of it; what is at the cell stays near it. */
  zoom(steps, cell) {
    const offset = this.offsetOf(Math.min(cell, Math.max(this.count - 1, 0)));
    const line = Math.floor(cell / this.columns);
    this.power = Math.min(Math.max(this.power - steps, 0), this.widest);
    this.#place(Math.floor(offset / this.cellBytes / this.columns) - line);
    return this.cellOf(offset);
  }

  pan(rows) {
    this.#place(this.row + rows);
  }

  /** The middle of what is shown. */
  center(offset) {
    this.#place(Math.floor(offset / this.cellBytes / this.columns - this.rows / 2));
  }

  whole() {
    this.power = this.widest;
    this.row = 0;
  }

  resize(columns, rows) {
    const middle = (this.start + this.end) / 2;
    const wasWhole = this.isWhole;
    Object.assign(this, { columns, rows });
    if (wasWhole) this.whole();
    else {
      this.power = Math.min(this.power, this.widest);
      this.center(middle);
    }
  }

  #place(row) {
    this.row = Math.min(Math.max(row, 0), this.#lastRow);
  }
}
