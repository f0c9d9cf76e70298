export class BlockMap {
  constructor(body, store, id) {}
  close() {}
  update() {}
}
