/** Single keys, which a person can switch off, as speech input needs it. */

const OFF = "fleet-shortcuts-off";

/** [keys as shown, what they do]. */
export const SHORTCUTS = [
  ["1 2 3 4 5 6", "agents, dispatches, dead letters, approvals, sessions, the fleet"],
  ["n", "send an event; Ctrl-Enter sends what is written"],
  ["e", "edit the marked dispatch's event and send it anew"],
  ["h", "hide texts of events and answers, or show them"],
  ["/", "the filter"],
  ["j k", "next and previous row; arrows, Page Up and Page Down too"],
  ["Enter", "open the marked row"],
  ["Esc", "close what is open"],
  ["p", "pause or resume the marked agent"],
  ["s", "select the marked row, or no longer"],
  ["r", "replay the marked dead letter, or retry it now"],
  ["a x", "approve or reject the marked dispatch"],
  ["c", "cancel the marked dispatch"],
  ["f", "hold the live feed, or let it go on"],
  ["?", "this help"],
];

/** Whether single keys do anything, kept over visits. */
export const settings = {
  enabled: () => localStorage.getItem(OFF) === null,
  enable: (yes) => (yes ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1")),
};

/** Call `actions[key]` for each key that is not meant for a field or the browser. */
export function listen(actions) {
  addEventListener("keydown", (event) => {
    const { target } = event;
    const typing = target.matches?.("input, select, textarea");
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (typing) target.blur();
      else actions.Escape();
      return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !settings.enabled()) return;
    const run = actions[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  });
}
