export class Method {
  constructor(body, store, id) {}
  close() {}
  update() {}
}
