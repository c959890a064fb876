/** What stands below a short list: charts, reasons, plans. A long list has the place for itself. */

import { el } from "./dom.js";
import { count } from "./format.js";
import { flow } from "./chain.js";
import { targets } from "./compose.js";

/** Why the dead letters died, most often first, as bars. */
export class Reasons {
  constructor() {
    this.node = el("section", { className: "card" });
  }

  draw(rows) {
    const numbers = new Map();
    for (const row of rows) {
      const why = row.stage ?? "other";
      numbers.set(why, (numbers.get(why) ?? 0) + 1);
    }
    const most = [...numbers].sort((one, other) => other[1] - one[1]).slice(0, 8);
    const wanted = JSON.stringify(most);
    if (this.node.dataset.wanted === wanted) return;
    this.node.dataset.wanted = wanted;
    this.node.replaceChildren(
      el("header", {}, el("h2", {}, "Why they died")),
      ...most.map(([why, number]) => {
        const bar = el("span", { className: "meter", "aria-hidden": "true" });
        bar.style.setProperty("--share", (number / most[0][1]).toFixed(3));
        return el("div", { className: "line" }, el("b", {}, why), el("span", { className: "grow" }, bar), el("span", { className: "num" }, count(number)));
      }),
    );
  }
}

/** The chains and who decides in them. */
export class Plans {
  constructor() {
    this.node = el("section", { className: "card", hidden: true });
    this.drawn = false;
  }

  async draw() {
    if (this.drawn) return;
    this.drawn = true;
    const { chains } = await targets();
    this.node.hidden = !chains.length;
    this.node.replaceChildren(
      el("header", {}, el("h2", {}, "Who decides")),
      ...chains.flatMap((plan) => [el("h3", {}, plan.name), flow(plan)]),
    );
  }
}
