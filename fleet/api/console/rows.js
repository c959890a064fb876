/**
 * A list of any length of which only the visible rows are in the page.
 *
 * It is one stop for the Tab key; arrows move the mark, Enter opens. Rows are told apart by a key,
 * so the mark and the place on the screen stay where they are when rows come and go.
 */

import { el } from "./dom.js";

const MORE_ROWS = 8;
const PHONE = "(max-width: 640px)";
/** Pixels of a list that is empty; of all that is around it with something below; likewise on a phone. */
const LEAST = 120;
const REST = 290;
const PHONE_REST = 210;

export class Rows {
  /**
   * `view` has `key(row)`, `cells(row)` (elements, made once), `fill(cells, row)`, `label`,
   * `columns` (a CSS class), `open(row)` and, where there is more to load, `more()`.
   */
  constructor(node) {
    this.node = node;
    this.view = null;
    this.rows = [];
    this.marked = null;
    this.pool = new Map();
    this.sizer = el("div", { className: "sizer", id: "rows" });
    this.frame = 0;
    node.setAttribute("role", "grid");
    // The heads stand outside what scrolls, and are a row of the grid all the same.
    node.setAttribute("aria-owns", "heads rows");
    node.append(this.sizer);
    node.addEventListener("scroll", () => this.draw(), { passive: true });
    node.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(node);
  }

  /** Show rows of another kind. */
  use(view) {
    this.view = view;
    this.rows = [];
    this.marked = null;
    for (const made of this.pool.values()) made.node.remove();
    this.pool.clear();
    this.node.setAttribute("aria-label", view.label);
    this.node.scrollTop = 0;
  }

  /** Show these rows; whoever has scrolled down keeps looking at the same ones. */
  set(rows) {
    const height = this.#height();
    const top = Math.floor(this.node.scrollTop / height);
    const anchor = top > 0 && this.rows[top] ? this.view.key(this.rows[top]) : null;
    this.rows = rows;
    this.sizer.style.height = `${rows.length * height}px`;
    this.node.style.setProperty("--content", `${rows.length * height + 2}px`);
    this.node.setAttribute("aria-rowcount", rows.length + 1);
    if (anchor !== null) {
      const now = this.#find(anchor, top);
      if (now >= 0 && now !== top) this.node.scrollTop += (now - top) * height;
    }
    this.draw();
  }

  /** The marked row, if it is still there. */
  get current() {
    if (this.marked === null) return null;
    return this.rows.find((row) => this.view.key(row) === this.marked) ?? null;
  }

  /** Mark a row without opening it. */
  mark(key) {
    this.marked = key;
    this.draw();
  }

  /** Draw at the next frame, however often this is called. */
  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  /** Move the mark by `step` rows and keep it in sight. */
  move(step) {
    if (!this.rows.length) return;
    const at = this.rows.findIndex((row) => this.view.key(row) === this.marked);
    const from = at < 0 && step > 0 ? -1 : Math.max(0, at);
    const to = Math.max(0, Math.min(this.rows.length - 1, from + step));
    this.marked = this.view.key(this.rows[to]);
    const height = this.#height();
    const { scrollTop, clientHeight } = this.node;
    if (to * height < scrollTop) this.node.scrollTop = to * height;
    if ((to + 1) * height > scrollTop + clientHeight) {
      this.node.scrollTop = (to + 1) * height - clientHeight;
    }
    this.draw();
  }

  #draw() {
    if (!this.view) return;
    const height = this.#height();
    const { scrollTop, clientHeight } = this.node;
    const first = Math.max(0, Math.floor(scrollTop / height) - MORE_ROWS);
    const last = Math.min(this.rows.length, Math.ceil((scrollTop + clientHeight) / height) + MORE_ROWS);
    const shown = this.rows.slice(first, last);
    this.#drop(new Set(shown.map((row) => this.view.key(row))));
    let active = null;
    let next = this.sizer.firstElementChild;
    shown.forEach((row, number) => {
      const key = this.view.key(row);
      const made = this.pool.get(key) ?? this.#make(key);
      made.row = row;
      // A screen reader reads rows in the order of the page.
      if (made.node === next) next = next.nextElementSibling;
      else this.sizer.insertBefore(made.node, next);
      const place = first + number;
      made.node.style.transform = `translateY(${place * height}px)`;
      made.node.setAttribute("aria-rowindex", place + 2);
      made.node.setAttribute("aria-selected", key === this.marked);
      if (key === this.marked) active = made.node.id;
      this.view.fill(made.cells, row, made.node);
    });
    if (active) this.node.setAttribute("aria-activedescendant", active);
    else this.node.removeAttribute("aria-activedescendant");
    if (last >= this.rows.length - MORE_ROWS) this.view.more?.();
  }

  /** Rows that are not among `keys` leave the page. */
  #drop(keys) {
    for (const [key, made] of this.pool) {
      if (keys.has(key)) continue;
      made.node.remove();
      this.pool.delete(key);
    }
  }

  #make(key) {
    const cells = this.view.cells(() => this.pool.get(key)?.row);
    const node = el("div", { role: "row", id: `row-${encodeURIComponent(key)}`, className: `row ${this.view.columns}` });
    for (const [name, cell] of Object.entries(cells)) {
      cell.setAttribute("role", "gridcell");
      cell.dataset.cell = name;
      node.append(cell);
    }
    node.addEventListener("click", () => {
      this.marked = key;
      this.draw();
      const row = this.pool.get(key)?.row;
      if (row) this.view.open(row);
    });
    const made = { node, cells, row: null };
    this.pool.set(key, made);
    return made;
  }

  #find(key, near) {
    // New rows come at the top, so the row has moved down, if at all, and not far.
    for (let place = near; place < this.rows.length; place++) {
      if (this.view.key(this.rows[place]) === key) return place;
    }
    return this.rows.findIndex((row) => this.view.key(row) === key);
  }

  /** True when the rows leave room for something below, in a place of `px` pixels. */
  leaveRoom(px) {
    const rows = this.rows.length * this.#height();
    // On a phone the page scrolls, and a list that is short is as tall as its rows.
    if (matchMedia(PHONE).matches) return rows < innerHeight - PHONE_REST;
    return Math.max(rows, LEAST) + REST <= px;
  }

  #height() {
    return parseFloat(getComputedStyle(this.node).getPropertyValue("--row")) || 32;
  }

  #key(event) {
    if (event.target !== this.node || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.node.clientHeight / this.#height()) - 1);
    const steps = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -Infinity,
      End: Infinity,
    };
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Enter" && this.current) this.view.open(this.current);
    else return;
    event.preventDefault();
  }
}
