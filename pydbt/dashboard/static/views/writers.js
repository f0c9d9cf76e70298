export class Writers {
  constructor(body, store, id) {}
  close() {}
  update() {}
}
