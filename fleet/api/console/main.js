/** Puts the page together: the address chooses what is shown, the bus keeps it true. */

import { keepToken, onTokenNeeded } from "./api.js";
import { AgentsView, switchAgent } from "./agents.js";
import { Bus } from "./bus.js";
import { Latency, Throughput } from "./charts.js";
import { Detail } from "./detail.js";
import { askToken, showHelp } from "./dialogs.js";
import { DispatchesView, operate } from "./dispatches.js";
import { byId, el, say, throttled } from "./dom.js";
import { Feed } from "./feed.js";
import { loadHistory } from "./history.js";
import { Header } from "./header.js";
import { Model } from "./model.js";
import { Rows } from "./rows.js";
import { listen, settings, SHORTCUTS } from "./shortcuts.js";

const DRAW_MS = 1000;

onTokenNeeded(() => {
  byId("token").hidden = false;
  return askToken();
});
byId("token").addEventListener("click", async () => {
  const token = await askToken();
  if (token === null) return;
  keepToken(token);
  location.reload();
});

const goTo = (hash) => {
  location.hash = hash;
};
const open = (kind) => (id) => goTo(here({ open: id ? `${kind}/${id}` : "" }));
const model = new Model();
const rows = new Rows(byId("list"));
const header = new Header(model);
const feed = new Feed((event) => open("dispatch")(event.dispatch_id));
const detail = new Detail(model, { open, list: (agent) => goTo(address("dispatches", { agent })) });
const charts = [new Throughput(byId("throughput")), new Latency(byId("latency"))];

const views = {
  agents: new AgentsView(model, open("agent")),
  dispatches: new DispatchesView(model, open("dispatch"), {
    label: "Dispatches, newest first",
    states: [],
    empty: "No dispatch yet: `fleet send \"hello\"` makes one.",
  }),
  dead: new DispatchesView(model, open("dispatch"), {
    label: "Dead letters, newest first",
    states: ["dead"],
    empty: "No dead letters.",
  }),
  approvals: new DispatchesView(model, open("dispatch"), {
    label: "Dispatches that wait for a person",
    states: ["parked"],
    empty: "Nothing waits for a person.",
  }),
};
for (const [place, one] of Object.entries(views)) one.place = place;
let view = {};

/** `#/view?agent=name&open=kind/id`, without what is empty. */
function address(place, query) {
  const given = Object.entries(query).filter(([, value]) => value);
  const text = new URLSearchParams(given).toString().replaceAll("%2F", "/");
  return text ? `#/${place}?${text}` : `#/${place}`;
}

/** The address of what is listed now, and of what is open beside it. */
function here({ open = "" } = {}) {
  const place = document.body.dataset.view;
  return address(place, { agent: views[place]?.agent, open });
}

const redraw = throttled(100, () => {
  const shown = view.rows();
  rows.set(shown);
  say(byId("hint"), view.hint(shown));
});

/** Show what the address names. */
function route() {
  const [place, text] = location.hash.replace(/^#\/?/, "").split("?");
  const query = new URLSearchParams(text);
  const next = views[place] ?? views.agents;
  document.body.dataset.view = place === "feed" ? "feed" : next.place;
  const agent = query.get("agent") ?? "";
  const narrowed = next !== views.agents && next.agent !== agent;
  if (narrowed) next.agent = agent;
  if (next !== view || narrowed) use(next);
  for (const tab of document.querySelectorAll(".tabs a")) {
    if (tab.dataset.view === document.body.dataset.view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  const [kind, ...rest] = (query.get("open") ?? "").split("/");
  const id = rest.join("/");
  if (id) rows.mark(id);
  detail.show(id ? kind : null, id || null);
}

function use(next) {
  view = next;
  rows.use(view);
  byId("tools").replaceChildren(...view.tools(redraw));
  byId("heads").className = `heads ${view.columns}`;
  byId("heads").replaceChildren(...view.heads.map(([text, kind]) => el("span", { className: kind ?? "" }, text)));
  view.load?.();
  redraw();
}

let opened = false;
const bus = new Bus({
  onOpen: () => {
    model.refresh();
    // What happened between the list and the first event is in neither.
    if (!opened) view.load?.();
    opened = true;
  },
  onLink: (state) => header.link(state),
  onResync: (reason) => {
    feed.note(`the state was fetched again (${reason.replaceAll("_", " ")})`);
    model.refresh();
    view.load?.();
    detail.refresh();
  },
  onEvents: (events) => {
    model.take(events);
    feed.add(events);
    view.take?.(events);
    detail.take(events);
  },
});

/** First what was, then what comes. */
async function follow() {
  bus.lastId = await loadHistory((events) => {
    model.take(events);
    feed.add(events);
  });
  bus.run();
}

model.addEventListener("agents", () => {
  if (view === views.agents) redraw();
});
setInterval(() => {
  if (document.hidden) return;
  const series = model.stats.series();
  for (const chart of charts) chart.draw(series);
}, DRAW_MS);

const doTo = (verb, ...states) => () => {
  const row = rows.current;
  if (row && view !== views.agents && states.includes(row.state)) operate(row.dispatch_id, verb);
};
const go = (place) => () => {
  goTo(`#/${place}`);
  rows.node.focus();
};
listen({
  1: go("agents"),
  2: go("dispatches"),
  3: go("dead"),
  4: go("approvals"),
  "/": () => byId("tools").querySelector("input")?.focus(),
  j: () => rows.move(1),
  k: () => rows.move(-1),
  p: () => {
    const row = view === views.agents && rows.current;
    if (row) switchAgent(model, row.agent, !row.paused);
  },
  r: doTo("retry", "dead"),
  a: doTo("approve", "parked"),
  x: doTo("reject", "parked"),
  c: doTo("cancel", "queued", "retrying", "active", "parked"),
  f: () => feed.hold(),
  "?": () => showHelp(SHORTCUTS, settings),
  Escape: () => {
    if (detail.kind) {
      goTo(here());
      rows.node.focus();
    }
  },
});
byId("help").addEventListener("click", () => showHelp(SHORTCUTS, settings));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  rows.node.focus();
});
addEventListener("hashchange", route);

route();
model.refresh();
follow();
