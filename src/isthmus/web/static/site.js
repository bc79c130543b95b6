// Live progress. Everything works without this script; with it, pages follow the store.
"use strict";
const page = document.body.dataset;

function follow(message) {
  const told = JSON.parse(message.data);
  for (const study of told.studies)
    for (const place of document.querySelectorAll("[data-study]"))
      if (place.dataset.study === study.name) place.querySelector("progress").value = study.share;
  for (const job of told.jobs)
    for (const place of document.querySelectorAll("td[data-job]"))
      if (place.dataset.job === job.id) place.textContent = job.said;
  const mine = told.jobs.find((job) => job.id === page.job);
  const changed = page.live === "job" ? mine && JSON.stringify(mine) !== page.seen : String(told.version) !== page.version;
  if (!changed) return;
  if (mine) page.seen = JSON.stringify(mine);
  if (page.live === "list" || page.live === "job") renew(told.version);
  else if (page.live === "notice") document.getElementById("changed").hidden = false;
}

let renewing = false;
async function renew(version) {
  const list = document.getElementById("list");
  // Who is choosing runs or stands in the list must not have it pulled away.
  const busy = list.querySelector("input:checked") || (list.contains(document.activeElement) && page.live !== "job");
  if (busy) { document.getElementById("changed").hidden = false; return; }
  if (renewing) return;
  renewing = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const content = fresh.getElementById("list");
    if (content) list.replaceChildren(...content.childNodes);
    page.version = fresh.body.dataset.version || version;
    for (const place of document.querySelectorAll("[data-study]")) {
      const other = [...fresh.querySelectorAll("[data-study]")].find((one) => one.dataset.study === place.dataset.study);
      if (other) place.replaceChildren(...other.childNodes);
    }
  } finally {
    renewing = false;
  }
}

if (page.live && "EventSource" in window) {
  let events;
  const listen = () => { events = new EventSource("/events"); events.onmessage = follow; };
  listen();
  // Browsers hold few connections to one host: a hidden page gives its own back.
  document.addEventListener("visibilitychange", () => { events.close(); if (!document.hidden) listen(); });
  addEventListener("pagehide", () => events.close());
}
