/** Copying to the clipboard, also where the page does not come over TLS. */

import { el } from "./dom.js";
import { done, failed } from "./dialogs.js";

/** Copy a text and say so. */
export async function copy(text, what) {
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyByField(text);
    done(`${what} copied.`);
  } catch (error) {
    failed(new Error(`The browser does not let this page copy: ${error.message}`));
  }
}

/** The address of a path of the API. */
export function absolute(path) {
  return new URL(path, document.baseURI).href;
}

/** A command line that asks the API for this path; the token stays in the environment. */
export function curl(path) {
  const authorization = sessionStorage.length ? " -H \"Authorization: Bearer $FLEET_TOKEN\"" : "";
  return `curl -sS${authorization} '${absolute(path).replaceAll("'", "%27")}'`;
}

function copyByField(text) {
  const field = el("textarea", { value: text, "aria-hidden": "true" });
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("select and copy it yourself");
}
