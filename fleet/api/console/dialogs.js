/** What the page asks a person, and what it tells in passing. */

import { byId, el, prose } from "./dom.js";

const TOLD_MS = 6000;

/** Say that something was done. */
export function done(text) {
  toast(text, "good");
}

/** Say why something could not be done, in the API's words. */
export function failed(problem) {
  toast(problem.message, "bad");
}

function toast(text, level) {
  const sign = level === "bad" ? "✕" : "✓";
  const node = el("p", { className: "toast", data: { level } });
  node.append(el("span", { "aria-hidden": "true" }, `${sign} `), ...prose(text));
  node.addEventListener("click", () => node.remove());
  const toasts = byId("toasts");
  toasts.append(node);
  while (toasts.childElementCount > 4) toasts.firstElementChild.remove();
  setTimeout(() => node.remove(), TOLD_MS);
}

/** A modal dialog with a form; the value of its first field, true without one, null when left. */
function ask({ title, text, field, yes, no = "Leave it" }) {
  const form = el("form", { method: "dialog" });
  const heading = el("h2", {}, title);
  heading.id = "dialog-title";
  form.append(heading);
  if (text) form.append(el("p", {}, ...prose(text)));
  if (field) form.append(el("label", {}, field.caption, field.input));
  form.append(
    el(
      "div",
      { className: "buttons" },
      el("button", { type: "button", value: "no", className: "no" }, no),
      el("button", { type: "submit", value: "yes", className: "yes" }, yes),
    ),
  );
  const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, form);
  form.querySelector(".no").addEventListener("click", () => dialog.close(""));
  const before = document.activeElement;
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const agreed = dialog.returnValue === "yes";
      dialog.remove();
      before?.focus?.();
      if (!agreed) resolve(null);
      else resolve(field ? field.input.value.trim() : true);
    });
  });
}

/** What a person says when approving, or an empty text; null when it is not approved. */
export function askComment(dispatchId) {
  const input = el("input", { type: "text", maxLength: 500 });
  return ask({
    title: `Approve ${dispatchId.slice(0, 8)}`,
    field: { caption: "Comment, kept with the decision", input },
    yes: "Approve",
  });
}

/** True when the person says yes. */
export async function confirmed(text, yes) {
  return (await ask({ title: yes, text, yes })) === true;
}

/** Why a dispatch is rejected or cancelled; null when it is not. */
export function askReason(verb, dispatchId) {
  const value = verb === "cancel" ? "cancelled in the console" : "";
  const input = el("input", { type: "text", maxLength: 500, value });
  input.required = verb === "reject";
  const word = verb === "cancel" ? "Cancel the dispatch" : "Reject";
  return ask({
    title: `${word} ${dispatchId.slice(0, 8)}`,
    field: { caption: "Reason", input },
    yes: word,
  });
}

/** An API token, or null. */
export function askToken() {
  const input = el("input", { type: "password", autocomplete: "off", required: true });
  return ask({
    title: "This fleet asks for a token",
    text: "`fleet token create` makes one. It is kept for this tab only.",
    field: { caption: "Token", input },
    yes: "Use it",
    no: "Without",
  });
}

/** The help: every shortcut, and what the signs mean. */
export function showHelp(shortcuts, settings) {
  const switchBox = el("input", { type: "checkbox", checked: settings.enabled() });
  switchBox.addEventListener("change", () => settings.enable(switchBox.checked));
  const rows = shortcuts.map(([keys, what]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, what)]);
  const dialog = el(
    "dialog",
    { className: "help", "aria-labelledby": "help-title" },
    el("h2", { id: "help-title" }, "Help"),
    el("p", {}, "Every list is one stop of the Tab key; its rows are chosen with the arrows."),
    el("dl", { className: "shortcuts" }, ...rows),
    el("label", { className: "check" }, switchBox, "Single keys are shortcuts"),
    el(
      "p",
      { className: "soft" },
      "Texts of events and answers are shown to those who may see them, unless you hide them. ",
      "The page follows the bus and goes on where it was when a connection comes back.",
    ),
    el("form", { method: "dialog" }, el("button", { className: "yes" }, "Close")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
