/* The page: its frame, the live link, and which view is open. Views are in views/, one module each. */

import { cut, el, keyed, setAttribute, setText } from "./lib/dom.js";
import { Announcer } from "./lib/announcer.js";
import { LEVEL_WORDS, shapeOf } from "./lib/levels.js";
import { Link } from "./lib/stream.js";
import { ageOfPage, shownLevel, Store } from "./lib/store.js";
import { Overview } from "./views/overview.js";
import { Replay } from "./views/replay.js";
import { Volume } from "./views/volume.js";

const byId = (id) => document.getElementById(id);
const store = new Store();
const announcer = new Announcer(byId("announce"), store);
let view = null;
let address = null;

/** `#/` is the overview, `#/volume/ID/VIEW` a view of a volume, `#/recording` plays one again. */
function parsed() {
  const words = location.hash.replace(/^#\/?/, "").split("/");
  if (words[0] === "recording") return { id: null, name: "recording" };
  return words[0] === "volume" && /^[0-9a-f]+$/.test(words[1] ?? "") ? { id: words[1], name: words[2] || "summary" } : { id: null, name: "overview" };
}

function open() {
  const next = parsed();
  const main = byId("main");
  if (view && address.id === next.id && next.id) view.open(next.name);
  else {
    view?.close();
    main.replaceChildren();
    view = next.id ? new Volume(main, store, next.id, next.name) : next.name === "recording" ? new Replay(main) : new Overview(main, store);
  }
  const moved = address !== null;
  address = next;
  document.body.dataset.view = next.id ? "volume" : next.name;
  setAttribute(byId("recording"), "aria-current", next.name === "recording" ? "page" : null);
  refresh();
  if (moved) {
    const heading = main.querySelector(next.id ? "[data-view-heading]" : "h1") ?? main.querySelector("h1");
    heading?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

function refresh() {
  refreshedAt = performance.now();
  view?.update();
  const here = store.volume(address?.id);
  document.title = here ? `${cut(here.view.name ?? "volume", 40)} · pydbt` : "pydbt";
  rail();
}

function rail() {
  const volumes = store.volumes();
  const links = byId("rail").querySelector("ul") ?? byId("rail").appendChild(el("ul"));
  const every = [{ id: "", name: "All volumes" }, ...volumes];
  keyed(
    links,
    every,
    (one) => one.id ?? one.view.id,
    (one) => el("li", {}, el("a", { href: one.view ? `#/volume/${one.view.id}` : "#/" })),
    (item, one) => {
      const link = item.firstElementChild;
      const level = one.view ? shownLevel(one, store) : "";
      const name = one.view ? cut(one.view.name ?? one.view.device, 40) : one.name;
      const whose = one.view && (store.overview.machines ?? []).length > 1 ? cut(one.view.machine, 20) : "";
      const key = `${level}|${name}|${whose}`;
      if (link.dataset.shown !== key) {
        link.dataset.shown = key;
        link.replaceChildren(
          ...(one.view ? [shapeOf(level), el("bdi", {}, name), el("bdi", { class: "muted" }, whose), el("span", { class: "unseen" }, `, ${LEVEL_WORDS[level]}`)] : [name]),
        );
      }
      const isHere = address?.name !== "recording" && (address?.id ?? "") === (one.view?.id ?? "");
      setAttribute(link, "aria-current", isHere ? "page" : null);
    },
  );
  pick(every);
}

/* The same choice for narrow screens. */
function pick(every) {
  const select = byId("pick");
  keyed(
    select,
    every,
    (one) => one.view?.id ?? "",
    (one) => el("option", { value: one.view?.id ?? "" }),
    (option, one) => {
      const words = one.view ? `${LEVEL_WORDS[shownLevel(one, store)]}: ${cut(one.view.name ?? one.view.device, 40)}` : one.name;
      setText(option, words);
    },
  );
  const here = address?.id ?? "";
  if (document.activeElement !== select && select.value !== here) select.value = here;
}

let shown = "";
let refreshedAt = 0;
const AGES_MS = 1000; /* ages grow between one overview and the next */

function standing(link) {
  const state = link.isStale ? (link.heardAt === null && link.silence < 4000 ? "connecting" : "stale") : "live";
  const words =
    state === "live" ? "Live" : state === "connecting" ? "Connecting" : `Stale: nothing was heard for ${ageOfPage(store)}`;
  setText(byId("link-words"), words);
  setAttribute(byId("link"), "data-state", state);
  setAttribute(document.body, "data-link", state);
  const alarm = byId("stale");
  if (state === "stale") {
    const why = link.problem ? ` (${link.problem})` : "";
    const text = `Stale: this page hears nothing new${why}. Figures are those of the last moment it did; nothing here is called good.`;
    alarm.hidden = false;
    setText(alarm, text);
  } else if (!alarm.hidden) {
    alarm.hidden = true;
    setText(alarm, "");
  }
  if (state !== shown || performance.now() - refreshedAt >= AGES_MS) refresh();
  if (shown && state !== shown) announcer.link(state);
  shown = state;
}

const link = new Link((overview) => {
  store.take(overview);
  setText(byId("version"), cut(overview.version ?? "", 24));
  announcer.look();
  refresh();
}, standing);
store.link = link;
byId("pick").addEventListener("change", (event) => {
  location.hash = event.target.value ? `#/volume/${event.target.value}/${address?.name === "overview" ? "" : (address?.name ?? "")}` : "#/";
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
addEventListener("hashchange", open);
open();
link.start();
