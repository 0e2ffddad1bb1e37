// Requests to the server. An error is a sentence for the person at the page.

const GONE = "The server does not answer. Is denoise serve still running?";

async function answerOf(response) {
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const error = new Error(body.error ? sentence(body.error) : `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

export function sentence(text) {
  const capital = /^[^\s.]+\.\w/.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(capital) ? capital : `${capital}.`;
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(GONE);
  }
  return answerOf(response);
}

export async function json(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  return (await request(path, options)).json();
}

export function remove(id) {
  return request(`/api/jobs/${id}`, { method: "DELETE" }).catch(() => {});
}

// Sends a file; fetch() cannot report how much of it has been sent. Returns the job and a way to
// stop it.
export function upload(file, name, model, onProgress) {
  const transfer = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    const form = new FormData();
    if (model) form.append("model", model);
    form.append("file", file, name);
    transfer.open("POST", "/api/jobs");
    transfer.responseType = "json";
    transfer.upload.addEventListener("progress", (event) => onProgress(event.loaded / event.total));
    transfer.addEventListener("load", () => {
      if (transfer.status < 400) {
        resolve(transfer.response);
        return;
      }
      const text = transfer.response?.error || `the server answered ${transfer.status}`;
      const error = new Error(sentence(text));
      error.status = transfer.status;
      error.retry = Number(transfer.getResponseHeader("Retry-After")) || 0;
      reject(error);
    });
    transfer.addEventListener("error", () => reject(new Error(GONE)));
    transfer.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    transfer.send(form);
  });
  return { done, stop: () => transfer.abort() };
}
