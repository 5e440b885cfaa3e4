// Charts: the history first, then a point a second from the page's event stream.
(() => {
  "use strict";
  const SPANS = {600: "10 min", 7200: "2 h", 86400: "24 h"};
  const STEPS = {600: 1, 7200: 10, 86400: 60};
  let span = 600;
  let plots = [];

  const faint = (rgb) => rgb.replace("rgb(", "rgba(").replace(")", ", .1)");
  // light-dark() is resolved where a colour is used, not where it is declared.
  const probe = document.createElement("span");
  function resolved(name) {
    probe.style.color = "var(" + name + ")";
    return getComputedStyle(probe).color;
  }

  const two = (number) => String(number).padStart(2, "0");
  function clock(at, exact) {
    const when = new Date(at * 1000);
    const seconds = exact === true ? ":" + two(when.getSeconds()) : "";
    return two(when.getHours()) + ":" + two(when.getMinutes()) + seconds;
  }

  function short(value) {
    if (value === null || value === undefined) return "–";
    if (Math.abs(value) >= 1e6) return (value / 1e6).toFixed(1) + " M";
    if (Math.abs(value) >= 1e4) return (value / 1e3).toFixed(0) + " k";
    return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 1);
  }

  function options(figure, labels, width) {
    const grid = {stroke: resolved("--line"), width: 1};
    const axis = {stroke: resolved("--soft"), grid, ticks: {show: false}, font: "11px system-ui, sans-serif"};
    return {
      width,
      height: 190,
      cursor: {points: {size: 6}, sync: {key: "headrace"}},
      legend: {live: true},
      scales: {y: {range: (u, low, high) => [0, Math.max(1, high * 1.08 || 1)]}},
      axes: [{...axis, space: 70, size: 30, values: (u, ticks) => ticks.map((at) => clock(at))}, {...axis, size: 44, space: 34, values: (u, ticks) => ticks.map(short)}],
      series: [
        {label: "Time", value: (u, at) => at === null ? "–" : clock(at, true)},
        ...labels.map((label, place) => ({
          label,
          stroke: resolved("--c" + (place + 1)),
          width: 1.75,
          fill: place === 0 ? faint(resolved("--c1")) : undefined,
          dash: place === 2 ? [5, 3] : undefined,
          spanGaps: span === 600,
          points: {show: false},
          value: (u, value) => short(value),
        })),
      ],
    };
  }

  // The legend has the newest values, unless the pointer asks for others.
  function tellNewest(plot, times) {
    if (!(plot.cursor.left >= 0)) plot.setLegend({idx: times.length - 1});
  }

  async function draw(figure) {
    const names = figure.dataset.series.split(",").map(decodeURIComponent);
    const answer = await fetch("/api/history?span=" + span + "&series=" + encodeURIComponent(figure.dataset.series));
    if (!answer.ok) return null;
    const points = await answer.json();
    const data = [points.times, ...names.map((name) => points.values[name])];
    const place = figure.querySelector(".plot");
    figure.querySelector(".span-text").textContent = SPANS[span];
    place.replaceChildren();
    const plot = new uPlot(options(figure, figure.dataset.labels.split(","), place.clientWidth), data, place);
    tellNewest(plot, data[0]);
    return {plot, names, data, place};
  }

  async function drawAll() {
    const drawn = await Promise.all([...document.querySelectorAll("figure[data-series]")].map((one) => draw(one).catch(() => null)));
    for (const old of plots) old.plot.destroy();
    plots = drawn.filter((one) => one);
  }

  function append(tick) {
    const step = STEPS[span];
    for (const one of plots) {
      const [times] = one.data;
      const slot = Math.floor(tick.at / step) * step;
      if (slot > times[times.length - 1]) {
        for (const column of one.data) column.shift();
        times.push(slot);
        one.names.forEach((name, place) => one.data[place + 1].push(tick.values[name] ?? null));
      } else if (step > 1) {
        continue;
      } else {
        one.names.forEach((name, place) => { one.data[place + 1][times.length - 1] = tick.values[name] ?? null; });
      }
      one.plot.setData(one.data);
      tellNewest(one.plot, times);
    }
  }

  function start() {
    if (!document.querySelector("figure[data-series]")) return;
    probe.hidden = true;
    document.body.append(probe);
    drawAll();
    for (const spans of document.querySelectorAll(".spans")) {
      spans.hidden = false;
      spans.addEventListener("click", (event) => {
        const button = event.target.closest("[data-span]");
        if (!button) return;
        span = Number(button.dataset.span);
        for (const other of spans.querySelectorAll("[data-span]")) other.setAttribute("aria-pressed", String(other === button));
        drawAll();
      });
    }
    document.addEventListener("tick", (event) => append(JSON.parse(event.detail.data)));
    document.addEventListener("headrace:theme", drawAll);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    // What was missed in a hidden tab is in the history.
    document.addEventListener("visibilitychange", () => { if (!document.hidden) drawAll(); });
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      for (const one of plots) one.plot.setSize({width: one.place.clientWidth, height: 190});
    });
  }

  start();
})();
