/** API tokens: made and revoked by an administrator. */

import { get, post, remove } from "./api.js";
import { confirmed, done, failed } from "./dialogs.js";
import { copy } from "./copy.js";
import { action, el, prose } from "./dom.js";
import { clock } from "./format.js";

/** The section; empty for whoever may not see the tokens. */
export async function tokensSection(model) {
  const found = await get("tokens").catch(() => null);
  if (!found) return null;
  const list = el("div", { className: "table-like" });
  const section = el(
    "section",
    { className: "card", "aria-labelledby": "tokens-title" },
    el(
      "header",
      {},
      el("h2", { id: "tokens-title" }, "API tokens"),
      // The first is made on the fleet's machine: nobody unknown may close it to the others.
      found.tokens.length ? action("New token", async () => create(model, draw), { className: "small" }) : null,
    ),
    list,
  );
  async function draw() {
    const { tokens } = await get("tokens");
    fill(list, tokens, draw);
  }
  fill(list, found.tokens, draw);
  return section;
}

function fill(list, tokens, draw) {
  const live = tokens.filter((one) => !one.revoked_ms);
  const gone = tokens.length - live.length;
  list.replaceChildren(
    ...live.map((one) => row(one, draw)),
    live.length
      ? ""
      : el(
          "p",
          { className: "soft" },
          ...prose("None: whoever reaches this address may do everything. `fleet token create NAME --scope admin` on the fleet's machine closes it."),
        ),
    gone ? el("p", { className: "soft" }, `${gone} revoked.`) : "",
  );
}

function row(one, draw) {
  return el(
    "div",
    { className: "line" },
    el("b", {}, one.name),
    el("span", { className: "soft grow" }, `${one.scopes.join(", ")} · ${one.id} · since ${clock(new Date(one.created_ms).toISOString())}`),
    action(
      "Revoke",
      async () => {
        if (!(await confirmed(`Revoke the token ${one.name}? What uses it is refused from now on.`, "Revoke"))) return;
        try {
          await remove(`tokens/${encodeURIComponent(one.id)}`);
          done(`The token ${one.name} is revoked.`);
          await draw();
        } catch (problem) {
          failed(problem);
        }
      },
      { className: "small", "aria-label": `Revoke the token ${one.name}` },
    ),
  );
}

async function create(model, draw) {
  const name = el("input", { type: "text", required: true, maxLength: 64, autocomplete: "off" });
  const scopes = el("input", { type: "text", required: true, autocomplete: "off", value: "read:*" });
  scopes.setAttribute("list", "scope-names");
  const agents = [...model.agents.keys()].slice(0, 100);
  const known = ["admin", "operate", "read:*", "send:*", "tools:*", ...agents.flatMap((one) => [`read:${one}`, `send:${one}`])];
  const problem = el("p", { className: "error", role: "alert", hidden: true });
  const leave = el("button", { type: "button" }, "Leave it");
  const make = el("button", { type: "submit", className: "yes" }, "Make it");
  const form = el(
    "form",
    {},
    el("h2", { id: "token-title" }, "New token"),
    el("label", {}, "Name, for people", name),
    el("label", {}, "Scopes, with blanks between them", scopes, el("datalist", { id: "scope-names" }, ...known.map((value) => el("option", { value })))),
    problem,
    el("div", { className: "buttons" }, leave, make),
  );
  const dialog = el("dialog", { "aria-labelledby": "token-title" }, form);
  leave.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const made = await post("tokens", { name: name.value.trim(), scopes: scopes.value.trim().split(/[\s,]+/) });
      form.replaceChildren(
        el("h2", { id: "token-title" }, `The token ${made.name}`),
        el("p", {}, "Keep it now: it is not shown again."),
        el("pre", { className: "secret" }, made.token),
        el("div", { className: "buttons" }, action("Copy", () => copy(made.token, "The token is")), action("Close", async () => dialog.close(), { className: "yes" })),
      );
      dialog.addEventListener("close", () => draw().catch(failed));
    } catch (error) {
      problem.hidden = false;
      problem.textContent = error.message;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  name.focus();
}
