/** Names with their values, as a list. */

import { el } from "./dom.js";

/** A list of `[name, value]`, each value a text, a node or several; what has none is left out. */
export function pairs(rows) {
  const list = el("dl", { className: "pairs" });
  for (const [name, value] of rows) {
    const parts = [value].flat().filter((one) => one !== null && one !== undefined && one !== "");
    if (!parts.length) continue;
    const shown = parts.flatMap((one) => (one instanceof Node ? [one, " "] : [String(one)]));
    list.append(el("dt", {}, name), el("dd", {}, ...shown));
  }
  return list;
}
