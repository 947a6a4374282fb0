// Requests to the API, and what the page tells and asks the user.

import { byId } from "./elements.js";
import { setClock } from "./text.js";

const TOKEN = "threadq-token";

/** Whether the server asks for a token. */
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

/** Timeout of a GET request in ms: a server that is suspended would never respond. */
const GET_TIMEOUT = 15e3;

/** Sends a request to the API. The body is a value, or a text of JSON. Returns the body of the response; with `raw`, also its text as `.text`. An error has the
 *  status of the response, or none if threadq did not respond. */
export async function api(method, path, body, raw = false) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const signal = method === "GET" ? AbortSignal.timeout(GET_TIMEOUT) : undefined;
    const options = { method, headers, body: body === undefined || typeof body === "string" ? body : JSON.stringify(body), cache: "no-store", signal };
    const response = await fetch(path, options).catch(noResponse);
    if (response.status === 401) {
      await login(token);
      continue;
    }
    setClock(response.headers.get("Date"));
    const text = await response.text().catch(noResponse);
    const value = parsed(text);
    if (!response.ok) {
      const error = new Error(value?.error ?? `unexpected response: status ${response.status}`);
      throw Object.assign(error, { status: response.status, jobId: value?.job_id });
    }
    if (value === undefined) throw new Error("the response is not from threadq");
    return raw ? { value, text } : value;
  }
}

function noResponse() {
  throw new Error("no response from the server");
}

/** The value of a JSON text, null for an empty text, undefined for any other text, such as an error page of a proxy. */
function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return undefined;
  }
}

const TOKEN_REJECTED = "The server rejected this token. Enter another token.";
let pendingLogin = null;

/** Asks for the token, once for all requests that need it. `rejected` is the token that was sent. */
function login(rejected) {
  if (sessionStorage.getItem(TOKEN) !== rejected) return Promise.resolve();
  pendingLogin ??= new Promise((resolve) => {
    const dialog = byId("login"), input = byId("token");
    if (rejected) byId("login-text").textContent = TOKEN_REJECTED;
    input.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.onclose = () => {
      const token = input.value.trim();
      input.value = "";
      // Other characters are invalid in a header.
      if (!/^[\x20-\x7e]+$/.test(token)) {
        if (token) byId("login-text").textContent = TOKEN_REJECTED;
        return dialog.showModal();
      }
      sessionStorage.setItem(TOKEN, token);
      pendingLogin = null;
      resolve();
    };
    dialog.showModal();
    input.focus();
  });
  return pendingLogin;
}

/** Sends a request that changes something, and shows the message when that is done. */
export async function send(method, path, message, body) {
  await api(method, path, body);
  notify(message);
}

export const query = (parameters) => {
  const text = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return text && "?" + text;
};

/** Asks a question and returns whether the answer is yes. An open question is never replaced by another one, which the
 *  user might answer by mistake. */
export async function ask(title, text, yes, danger = false) {
  const dialog = byId("ask");
  if (dialog.open) throw new Error(`"${title}" could not be asked because another question was open.`);
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-yes").textContent = yes;
  byId("ask-yes").className = danger ? "danger" : "main";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}

let messageTimer;

/** Shows a message for 8 s; screen readers read it out. */
export function notify(text, isError = false) {
  const message = byId("said");
  message.textContent = text;
  message.className = isError ? "error" : "";
  clearTimeout(messageTimer);
  messageTimer = setTimeout(() => { message.textContent = ""; }, 8000);
}
