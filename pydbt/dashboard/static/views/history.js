export class History {
  constructor(body, store, id) {}
  close() {}
  update() {}
}
