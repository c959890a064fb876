/** Puts the page together: the address chooses what is shown, the bus keeps it true. */

import { keepToken, onTokenNeeded } from "./api.js";
import { AgentsView, switchAgent } from "./agents.js";
import { Bus } from "./bus.js";
import { Latency, Throughput } from "./charts.js";
import { compose, resend } from "./compose.js";
import * as content from "./content.js";
import { Detail, focusList } from "./detail.js";
import { askToken, showHelp } from "./dialogs.js";
import { DispatchesView } from "./dispatches.js";
import { action, byId, el, prose, say, throttled } from "./dom.js";
import { Feed } from "./feed.js";
import { FleetView, openAlerts } from "./fleet.js";
import { shortId } from "./format.js";
import { loadHistory } from "./history.js";
import { Header } from "./header.js";
import { Model } from "./model.js";
import { Rows } from "./rows.js";
import { SessionsView } from "./sessions.js";
import { listen, settings, SHORTCUTS } from "./shortcuts.js";
import { Spans } from "./spans.js";
import { Plans, Reasons } from "./under.js";
import { operate } from "./verbs.js";

const DRAW_MS = 1000;
const ALERTS_MS = 15000;
/** What can be open beside a list, and the list it belongs to. */
const KINDS = { dispatch: "dispatches", agent: "agents", session: "sessions" };

const TITLES = {
  agents: "Agents",
  dispatches: "Dispatches",
  sessions: "Sessions",
  dead: "Dead letters",
  approvals: "Approvals",
  fleet: "Fleet",
  feed: "Live feed",
};

onTokenNeeded(async () => {
  byId("token").hidden = false;
  const token = await askToken();
  if (token && opened) {
    // Another token may see other things. A reload would lose what is being written.
    keepToken(token);
    content.allow();
    model.refresh();
    view.load?.();
    detail.refresh();
  }
  return token;
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
const open = (kind) => (id) => goTo(id ? `#/${kind}/${encodeURIComponent(id)}` : here());
const model = new Model();
const rows = new Rows(byId("list"));
const header = new Header(model);
const feed = new Feed((event) => open("dispatch")(event.dispatch_id));
const detail = new Detail(model, { open, list: (agent) => goTo(address("dispatches", { agent })) });
const charts = [new Throughput(byId("throughput")), new Latency(byId("latency"))];
const spans = new Spans();
const write = (draft) => compose(open("dispatch"), draft);

const views = {
  agents: new AgentsView(model, open("agent")),
  dispatches: new DispatchesView(model, open("dispatch"), {
    label: "Dispatches, newest first",
    states: [],
    empty: "No dispatch yet: send an event here, or with `fleet send \"hello\"`.",
  }),
  sessions: new SessionsView(model, open("session")),
  dead: new DispatchesView(model, open("dispatch"), {
    label: "Dead letters, newest first",
    states: ["dead"],
    empty: "No dead letters. A dispatch that is given up stands here, to be replayed.",
  }),
  approvals: new DispatchesView(model, open("dispatch"), {
    label: "Dispatches that wait for a person",
    states: ["parked"],
    empty: "Nothing waits for a person. A chain with a stage `human:NAME` asks here.",
  }),
  fleet: new FleetView(model, spans),
};
for (const [place, one] of Object.entries(views)) one.place = place;
const reasons = new Reasons();
const plans = new Plans();
/** What stands below a list that leaves room. */
const UNDER = {
  agents: () => [spans.node],
  dispatches: () => [spans.node],
  sessions: () => [spans.node],
  dead: (shown) => {
    reasons.draw(shown);
    return [...(shown.length ? [reasons.node] : []), spans.node];
  },
  approvals: () => {
    plans.draw();
    return [plans.node, spans.node];
  },
};
let view = {};

/** `#/view?agent=name`, without what is empty. */
function address(place, query) {
  const given = Object.entries(query).filter(([, value]) => value);
  const text = new URLSearchParams(given).toString();
  return text ? `#/${place}?${text}` : `#/${place}`;
}

/** The address of what is listed now, with nothing open beside it. */
function here() {
  const place = document.body.dataset.view;
  return address(place, { agent: views[place]?.agent });
}

const redraw = throttled(100, () => {
  if (view.page) return;
  const shown = view.rows();
  rows.set(shown);
  hint(view.hint(shown));
  under(shown);
});

/** An empty list says why, in its place, and what to do about it. */
function hint(text) {
  const node = byId("hint");
  if (node.dataset.text === text) return;
  node.dataset.text = text;
  const sends = text && ["dispatches", "sessions"].includes(view.place) && text.includes("`");
  node.replaceChildren(
    ...(text ? [el("p", {}, ...prose(text))] : []),
    ...(sends ? [action("Send an event", () => write(), { className: "yes" })] : []),
  );
}

function under(shown) {
  const node = byId("under");
  const roomy = rows.leaveRoom(byId("main").clientHeight);
  const wanted = (roomy && UNDER[view.place]?.(shown)) || [];
  const same = wanted.length === node.childElementCount && wanted.every((one, place) => one === node.children[place]);
  if (!same) node.replaceChildren(...wanted);
  if (wanted.length) spans.refresh();
}

/** Show what the address names. */
function route() {
  const [path, text] = location.hash.replace(/^#\/?/, "").split("?");
  const query = new URLSearchParams(text);
  const [place, ...more] = path.split("/");
  let kind = place in KINDS && more.length ? place : null;
  let id = kind ? decodeURIComponent(more.join("/")) : null;
  if (!kind && query.get("open")) {
    // An address of an earlier version, which somebody may have kept.
    [kind, id] = query.get("open").split(/\/(.*)/);
  }
  if (place in KINDS && kind) {
    if (!view.place) use(views[KINDS[kind]], KINDS[kind]);
  } else {
    const next = views[place] ?? views.agents;
    const agent = query.get("agent") ?? "";
    const narrowed = next instanceof DispatchesView && next.agent !== agent;
    if (narrowed) next.agent = agent;
    const shownPlace = place === "feed" ? "feed" : next.place;
    if (next !== view || narrowed) use(next, shownPlace);
    document.body.dataset.view = shownPlace;
  }
  for (const tab of document.querySelectorAll(".tabs a")) {
    if (tab.dataset.view === document.body.dataset.view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  title(kind, id);
  if (id) rows.mark(id);
  detail.show(id ? kind : null, id || null);
}

function use(next, place) {
  view = next;
  document.body.dataset.view = place;
  byId("tools").replaceChildren(...view.tools(redraw));
  byId("tools").hidden = !byId("tools").childElementCount;
  byId("page").hidden = !view.page;
  byId("table").hidden = byId("under").hidden = Boolean(view.page);
  if (view.page) {
    byId("page").replaceChildren(view.page());
    return;
  }
  rows.use(view);
  byId("heads").className = `heads ${view.columns}`;
  byId("heads").replaceChildren(...view.heads.map(head));
  view.load?.();
  redraw();
}

/** The head of a column; one without words on the screen has words for screen readers. */
function head([text, kind, unseen]) {
  const words = unseen ? el("span", { className: "unseen" }, unseen) : text;
  return el("span", { className: kind ?? "", role: "columnheader" }, words);
}

/** The title of the window, and of the list for screen readers. */
function title(kind, id) {
  const place = TITLES[document.body.dataset.view];
  say(byId("view-title"), place);
  document.title = `${id ? `${kind} ${kind === "dispatch" ? shortId(id) : id}` : place} · fleet`;
}

let opened = false;
const bus = new Bus({
  onOpen: () => {
    model.refresh();
    // What happened between the list and the first event is in neither.
    if (!opened) view.load?.();
    opened = true;
  },
  onAlive: () => model.alive(),
  onLink: (state) => {
    header.link(state);
    // How the fleet is, is not known either: ask at once instead of showing what was.
    if (state === "away") model.refresh();
  },
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
    if (events.some((event) => event.type === "alert")) countAlerts();
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

const countAlerts = throttled(1000, async () => {
  const alerts = await openAlerts();
  const number = alerts?.open.length ?? 0;
  say(byId("count-alerts"), number ? String(number) : "");
  byId("count-alerts").hidden = !number;
});

model.addEventListener("agents", () => {
  if (view === views.agents) redraw();
});
addEventListener("resize", redraw);
setInterval(() => {
  if (document.hidden) return;
  const series = model.stats.series();
  for (const chart of charts) chart.draw(series);
}, DRAW_MS);
setInterval(() => {
  if (!document.hidden) countAlerts();
}, ALERTS_MS);

const contentButton = byId("content");
const sayContent = () => say(contentButton, content.shown() ? "Hide content" : "Show content");
contentButton.addEventListener("click", content.toggle);
content.onChange(() => {
  sayContent();
  view.load?.();
  redraw();
});
sayContent();
byId("send").addEventListener("click", () => write());

const marked = () => (view.page || view === views.agents || view === views.sessions ? null : rows.current);
const doTo = (verb, ...states) => () => {
  const row = marked();
  if (row && states.includes(row.state)) operate(row.dispatch_id, verb);
};
const focusMain = () => (view.page ? byId("page") : rows.node).focus({ preventScroll: true });
const go = (place) => () => {
  goTo(`#/${place}`);
  route();
  focusMain();
};
listen({
  1: go("agents"),
  2: go("dispatches"),
  3: go("dead"),
  4: go("approvals"),
  5: go("sessions"),
  6: go("fleet"),
  "/": () => byId("tools").querySelector("input")?.focus(),
  j: () => rows.move(1),
  k: () => rows.move(-1),
  n: () => write(view === views.agents && rows.current ? { to: rows.current.agent } : {}),
  e: () => marked() && resend(marked(), open("dispatch")),
  h: () => content.toggle(),
  s: () => marked() && view.select(marked()),
  p: () => {
    const row = view === views.agents && rows.current;
    if (row) switchAgent(model, row.agent, !row.paused);
  },
  r: doTo("retry", "dead", "retrying"),
  a: doTo("approve", "parked"),
  x: doTo("reject", "parked"),
  c: doTo("cancel", "queued", "retrying", "active", "parked"),
  f: () => feed.hold(),
  "?": () => showHelp(SHORTCUTS, settings),
  Escape: () => {
    if (!detail.kind) return;
    goTo(here());
    // The address tells a moment later, and a list that is covered takes no focus.
    route();
    focusList();
  },
});
byId("help").addEventListener("click", () => showHelp(SHORTCUTS, settings));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  focusMain();
});
addEventListener("hashchange", route);

route();
model.refresh();
follow();
countAlerts();
