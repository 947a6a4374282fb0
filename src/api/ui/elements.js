// Elements of the page. A view renders elements, and the page is changed into these elements node by node, so that the
// focus, a selection and an open <details> survive a refresh. Text is always set as text: no text of a job can become
// markup.

export const byId = (id) => document.getElementById(id);

/** Makes an element: `el("td", {class: "n"}, "text", child, [children])`. False, null and undefined children are skipped. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** A text in a font of fixed width: an id, a name, an exact time. */
export const mono = (...text) => el("span", { class: "mono" }, text);
/** What is shown in place of a list without entries. */
export const nothing = (...words) => el("p", { class: "nothing" }, words);
/** A link that looks like a button. */
export const go = (name, href, label) => el("a", { class: "button", href, "aria-label": label }, name);
/** A text of several lines that is scrolled in its place. */
export const pre = (label, text) => el("pre", { tabindex: 0, role: "region", "aria-label": label }, text);

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "checked") node.checked = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== false && child != null));
  return node;
}

/** Makes the children of `old` equal to `children`, and keeps the nodes that are there already. */
export function show(old, children) {
  const wanted = el("div", {}, children);
  morph(old, wanted);
}

/** Identifies a node among its siblings: rows of a list come and go, and the focus must stay on its row. */
const keyOf = (node) => node.nodeName + " " + (node.dataset?.key ?? node.dataset?.do ?? "");

function morph(old, wanted) {
  let at = old.firstChild;
  for (const node of [...wanted.childNodes]) {
    let there = at;
    while (there && keyOf(there) !== keyOf(node)) there = there.nextSibling;
    if (!there) {
      old.insertBefore(node, at);
      continue;
    }
    // The nodes in between are gone, or have moved and are made anew at their new place.
    while (at !== there) at = drop(at);
    at = there.nextSibling;
    update(there, node);
  }
  while (at) at = drop(at);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

/** Makes an existing node equal to a node of the same kind. */
function update(there, node) {
  if (node.nodeType === Node.TEXT_NODE) {
    if (there.data !== node.data) there.data = node.data;
    return;
  }
  for (const { name } of [...there.attributes]) {
    // A <details> that the user has opened stays open.
    if (!node.hasAttribute(name) && name !== "open") there.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  }
  if (node.nodeName === "INPUT" && node.type === "checkbox") there.checked = node.checked;
  morph(there, node);
}
