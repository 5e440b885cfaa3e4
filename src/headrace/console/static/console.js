// What a page can do with JavaScript; without, it is complete for reading, and its forms work.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);

  // Times, in the reader's zone.
  const sameDay = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false});
  const otherDay = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium", hour12: false});
  function localise(root) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const when = new Date(element.dateTime);
      const text = (when.toDateString() === new Date().toDateString() ? sameDay : otherDay).format(when);
      if (element.textContent !== text) {
        element.title = element.dateTime;
        element.textContent = text;
      }
    }
  }
  localise(document);

  // On a phone the sections are a line that scrolls: the page's own is to be seen.
  document.querySelector("nav [aria-current=page]")?.scrollIntoView({block: "nearest", inline: "center"});

  // Whether what is shown is live.
  const state = byId("link-state");
  function tell(kind, text) {
    if (!state) return;
    state.dataset.state = kind;
    state.querySelector(".link-text").textContent = text;
  }
  document.addEventListener("htmx:sse:after:connection", () => tell("live", "live"));
  document.addEventListener("htmx:sse:after:message", () => tell("live", "live"));
  document.addEventListener("htmx:sse:error", () => tell("bad", "console away"));
  document.addEventListener("htmx:response:error", () => tell("bad", "console away"));
  document.addEventListener("htmx:after:swap", () => {
    const live = byId("live");
    if (!live) return;
    localise(live);
    if (live.querySelector(".banner.bad")) tell("bad", "broker away");
    mark(rowAt);
  });

  // The theme: as the system, light, dark.
  const themes = ["system", "light", "dark"];
  const theme = byId("theme");
  const chosen = () => document.documentElement.dataset.theme || "system";
  function turnTheme() {
    const next = themes[(themes.indexOf(chosen()) + 1) % themes.length];
    if (next === "system") {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("headrace-theme");
    } else {
      document.documentElement.dataset.theme = next;
      localStorage.setItem("headrace-theme", next);
    }
    theme.textContent = "Theme: " + next;
    document.dispatchEvent(new Event("headrace:theme"));
  }
  if (theme) {
    theme.hidden = false;
    theme.textContent = "Theme: " + chosen();
    theme.addEventListener("click", turnTheme);
  }

  // The help.
  const help = byId("help");
  const opener = byId("help-open");
  if (help && opener) {
    opener.hidden = false;
    opener.addEventListener("click", () => help.showModal());
  }

  // Rows by keyboard.
  let rowAt = -1;
  function rows() {
    return [...document.querySelectorAll("table.rows tbody tr")];
  }
  function mark(at) {
    const all = rows();
    all.forEach((row, place) => row.classList.toggle("here", place === at));
    return all[at];
  }
  function move(by) {
    const count = rows().length;
    if (!count) return;
    rowAt = Math.max(0, Math.min(count - 1, rowAt + by));
    const row = mark(rowAt);
    row.scrollIntoView({block: "nearest"});
    row.querySelector("a")?.focus({preventScroll: true});
  }

  const places = {o: "/", q: "/queues", d: "/dead-letters", t: "/tasks", c: "/schedules", w: "/web", s: "/streams", p: "/topics", k: "/workers", e: "/settings"};
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (typing) {
      if (event.key === "Escape") typing.blur();
      return;
    }
    if (help?.open) return;
    if (going && Date.now() - going < 1500 && places[event.key]) {
      const link = document.querySelector('.side a[href="' + places[event.key] + '"]');
      if (link) link.click();
      going = 0;
      return;
    }
    going = 0;
    const keys = {
      "/": () => document.querySelector("[data-search]")?.focus(),
      "?": () => help?.showModal(),
      g: () => { going = Date.now(); },
      j: () => move(1),
      k: () => move(-1),
      t: () => theme && turnTheme(),
    };
    if (keys[event.key]) {
      keys[event.key]();
      event.preventDefault();
    }
  });

  // "All of these" above a list of choices.
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-all]")) return;
    for (const box of event.target.form.querySelectorAll('input[type="checkbox"][name="' + event.target.dataset.all + '"]')) {
      box.checked = event.target.checked;
    }
  });
})();
