export class BlockIo {
  constructor(body, store, id) {}
  close() {}
  update() {}
}
