"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const svg = document.getElementById("map");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);
  const NS = "http://www.w3.org/2000/svg";
  const home = { x: 0, y: 0, w: data.width, h: data.height };
  const closest = Math.max(data.width, data.height) / Math.max(60, data.closest);
  let view = { ...home };

  // ---- pan and zoom -------------------------------------------------------------------------------------------
  const show = () => {
    svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
    const zoomed = view.w < home.w * 0.999;
    svg.classList.toggle("moved", zoomed);
    const scale = perUnit();
    svg.classList.toggle("close", scale * data.unitsPerPx.landcover > 1.5);
    drawScale(scale);
  };
  const perUnit = () => {
    const box = svg.getBoundingClientRect();
    return Math.min(box.width / view.w, box.height / view.h) || 1;
  };
  const place = (clientX, clientY) => {
    const box = svg.getBoundingClientRect();
    const s = perUnit();
    return {
      x: view.x + view.w / 2 + (clientX - box.left - box.width / 2) / s,
      y: view.y + view.h / 2 + (clientY - box.top - box.height / 2) / s,
    };
  };
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
  const settle = () => {
    view.x = clamp(view.x, -view.w / 2, home.w - view.w / 2);
    view.y = clamp(view.y, -view.h / 2, home.h - view.h / 2);
    if (view.w >= home.w) view = { ...home };
    show();
  };
  const zoom = (factor, at) => {
    const k = clamp(view.w * factor, closest * (home.w / Math.max(home.w, home.h)), home.w) / view.w;
    const c = at || { x: view.x + view.w / 2, y: view.y + view.h / 2 };
    view = { x: c.x - (c.x - view.x) * k, y: c.y - (c.y - view.y) * k, w: view.w * k, h: view.h * k };
    settle();
  };
  const goTo = ([x, y, w, h], room) => {
    const k = clamp(Math.max(w / home.w, h / home.h) * room, closest / Math.max(home.w, home.h), 1);
    view = { w: home.w * k, h: home.h * k };
    view.x = x + w / 2 - view.w / 2;
    view.y = y + h / 2 - view.h / 2;
    settle();
  };
  const pan = (dx, dy) => { view.x += dx; view.y += dy; settle(); };

  const drawScale = (scale) => {
    if (!data.metresPerUnit) return;
    const metres = (110 / scale) * data.metresPerUnit;
    const ten = 10 ** Math.floor(Math.log10(metres));
    const nice = [5, 2, 1].map((m) => m * ten).find((m) => m <= metres) || ten;
    by("scale-bar").style.width = `${(nice / data.metresPerUnit) * scale}px`;
    by("scale-text").textContent = nice >= 1000 ? `${nice / 1000} km` : `${+nice.toPrecision(1)} m`;
  };

  const touches = new Map();
  let start = null;
  let dragged = false;
  const spread = () => {
    const [a, b] = [...touches.values()];
    return { d: Math.hypot(a.x - b.x, a.y - b.y) || 1, x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };
  svg.addEventListener("pointerdown", (e) => {
    if (e.button) return;
    touches.set(e.pointerId, { x: e.clientX, y: e.clientY });
    dragged = touches.size > 1;
    start = { x: e.clientX, y: e.clientY };
  });
  svg.addEventListener("pointermove", (e) => {
    const last = touches.get(e.pointerId);
    if (!last) return;
    const before = touches.size === 2 ? spread() : null;
    touches.set(e.pointerId, { x: e.clientX, y: e.clientY });
    if (before) {
      const now = spread();
      const s = perUnit();
      pan((before.x - now.x) / s, (before.y - now.y) / s);
      zoom(before.d / now.d, place(now.x, now.y));
    } else if (dragged || Math.hypot(e.clientX - start.x, e.clientY - start.y) > 4) {
      if (!dragged) { dragged = true; svg.setPointerCapture(e.pointerId); svg.classList.add("dragging"); }
      const s = perUnit();
      pan((last.x - e.clientX) / s, (last.y - e.clientY) / s);
    }
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    svg.addEventListener(kind, (e) => { touches.delete(e.pointerId); svg.classList.remove("dragging"); });
  }
  svg.addEventListener("click", (e) => { if (dragged) { e.stopPropagation(); dragged = false; } }, true);
  svg.addEventListener("dblclick", (e) => zoom(e.shiftKey ? 2 : 0.5, place(e.clientX, e.clientY)));
  svg.addEventListener("wheel", (e) => {
    // The page scrolls unless the map was chosen, by a click or by keyboard, or Ctrl is held.
    if (!e.ctrlKey && !e.metaKey && !svg.contains(document.activeElement)) return;
    e.preventDefault();
    zoom(Math.exp(clamp(e.deltaY, -240, 240) * (e.ctrlKey ? 0.008 : 0.0022)), place(e.clientX, e.clientY));
  }, { passive: false });
  svg.addEventListener("keydown", (e) => {
    const step = 0.15;
    const act = {
      "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7), "0": () => { view = { ...home }; show(); },
      ArrowLeft: () => pan(-view.w * step, 0), ArrowRight: () => pan(view.w * step, 0),
      ArrowUp: () => pan(0, -view.h * step), ArrowDown: () => pan(0, view.h * step),
    }[e.key];
    if (act && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); act(); }
  });
  by("zoom-in").addEventListener("click", () => zoom(0.6));
  by("zoom-out").addEventListener("click", () => zoom(1 / 0.6));
  by("zoom-all").addEventListener("click", () => { view = { ...home }; show(); });
  new ResizeObserver(show).observe(svg);

  // ---- layers -------------------------------------------------------------------------------------------------
  const layers = new Map(all(".layer").map((row) => [row.dataset.layer, {
    row, on: row.querySelector("input[type=checkbox]"), strength: row.querySelector("input[type=range]"),
    group: svg.querySelector(`[data-of="${row.dataset.layer}"]`),
  }]));
  const applyLayer = (layer) => {
    layer.row.classList.toggle("off", !layer.on.checked);
    layer.strength.disabled = !layer.on.checked;
    layer.strength.setAttribute("aria-valuetext", `${layer.strength.value} percent`);
    if (layer.on.checked) layer.group.removeAttribute("hidden"); else layer.group.setAttribute("hidden", "");
    layer.group.setAttribute("opacity", layer.strength.value / 100);
  };
  const chips = all(".chip");
  const forget = () => chips.forEach((chip) => chip.setAttribute("aria-pressed", "false"));
  for (const layer of layers.values()) {
    layer.on.addEventListener("change", () => { forget(); applyLayer(layer); });
    layer.strength.addEventListener("input", () => { forget(); applyLayer(layer); });
    applyLayer(layer);
  }
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const wanted = data.views[chip.dataset.view];
      for (const [name, layer] of layers) {
        layer.on.checked = name in wanted.layers;
        if (name in wanted.layers) layer.strength.value = wanted.layers[name];
        applyLayer(layer);
      }
      if (measure) { measure.value = wanted.measure || ""; paint(); }
      forget();
      chip.setAttribute("aria-pressed", "true");
    });
  }

  // ---- regions ------------------------------------------------------------------------------------------------
  const measure = by("measure");
  const shapes = all(".region", svg);
  const hex = (n) => n.toString(16).padStart(2, "0");
  const ramp = (share) => {
    const at = clamp(share, 0, 1) * (data.ramp.length - 1);
    const i = Math.min(Math.floor(at), data.ramp.length - 2);
    return "#" + data.ramp[i].map((a, k) => hex(Math.round(a + (data.ramp[i + 1][k] - a) * (at - i)))).join("");
  };
  const shown = (value, kind) => {
    if (value === null || value === undefined) return "–";
    if (kind === "share") return `${(100 * value).toFixed(1)} %`;
    if (kind === "score") return value.toFixed(3);
    return value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 2 : 0 });
  };
  const paint = () => {
    const wanted = data.measures.find((m) => m.key === measure.value);
    const values = data.regions.map((r) => (wanted ? r.values[wanted.key] : null));
    const known = values.filter((v) => v !== null && v !== undefined);
    const low = Math.min(...known);
    const high = Math.max(...known);
    shapes.forEach((shape, i) => {
      const there = wanted && values[i] !== null && values[i] !== undefined;
      shape.classList.toggle("filled", Boolean(there));
      shape.style.fill = there ? ramp(high > low ? (values[i] - low) / (high - low) : 0.5) : "";
    });
    by("measure-key").hidden = !wanted || !known.length;
    if (wanted && known.length) {
      by("measure-low").textContent = shown(low, wanted.kind);
      by("measure-high").textContent = shown(high, wanted.kind);
    }
  };
  const make = (tag, text, cls) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (cls) element.className = cls;
    return element;
  };
  const rows = all("tr[data-region]");
  const choose = (index, travel) => {
    const region = data.regions[index];
    shapes.forEach((shape, i) => shape.setAttribute("aria-pressed", String(i === index)));
    rows.forEach((row) => row.classList.toggle("on", Number(row.dataset.region) === index));
    const box = by("chosen-region");
    box.replaceChildren(make("h3", region.name));
    const list = make("dl");
    for (const m of data.measures.filter((one) => one.over === "region")) {
      list.append(make("dt", m.label), make("dd", shown(region.values[m.key], m.kind)));
    }
    if (list.children.length) box.append(list);
    const table = make("table");
    const head = table.createTHead().insertRow();
    const columns = data.perClass;
    head.append(make("th", "class"), ...columns.map((c) => make("th", c.label)));
    const body = table.createTBody();
    data.classes.forEach((c, i) => {
      const row = body.insertRow();
      const name = make("th");
      name.scope = "row";
      const square = document.createElementNS(NS, "svg");
      square.setAttribute("class", "swatch");
      square.setAttribute("viewBox", "0 0 12 12");
      square.setAttribute("aria-hidden", "true");
      const rect = document.createElementNS(NS, "rect");
      for (const [key, value] of Object.entries({ width: 12, height: 12, rx: 2, fill: c.color })) rect.setAttribute(key, value);
      square.append(rect);
      name.append(square, ` ${c.name}`);
      row.append(name, ...columns.map((col) => make("td", shown(region.values[`${col.key}:${i}`], col.kind))));
    });
    if (columns.length && data.classes.length) box.append(table);
    const panel = box.parentNode;
    if (panel.scrollHeight > panel.clientHeight) panel.scrollTop = box.offsetTop - panel.offsetTop;
    if (travel) {
      layers.get("regions").on.checked = true;
      applyLayer(layers.get("regions"));
      goTo(region.box, 1.4);
      svg.scrollIntoView({ block: "nearest" });
    }
  };
  shapes.forEach((shape, i) => {
    shape.addEventListener("click", () => choose(i, false));
    shape.addEventListener("keydown", (e) => {
      if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(i, false); }
    });
  });
  for (const button of all("[data-go-region]")) {
    button.addEventListener("click", () => choose(Number(button.dataset.goRegion), true));
  }
  if (measure) { measure.addEventListener("change", () => { forget(); paint(); }); paint(); }

  // ---- places -------------------------------------------------------------------------------------------------
  const detail = by("detail");
  const details = new Set();
  for (const button of all("[data-place]")) {
    button.addEventListener("click", () => {
      const index = Number(button.dataset.place);
      const [x, y, w, h] = data.places[index];
      for (const img of all("img[data-of]", button)) {
        // Where the map is coarser than these pictures, they become part of its layers.
        const key = `${index} ${img.dataset.of}`;
        const layer = layers.get(img.dataset.of);
        if (details.has(key) || !layer || w / img.naturalWidth >= data.unitsPerPx[img.dataset.of]) continue;
        const image = document.createElementNS(NS, "image");
        for (const [name, value] of Object.entries({ x, y, width: w, height: h, preserveAspectRatio: "none", href: img.src })) {
          image.setAttribute(name, value);
        }
        if (img.dataset.of !== "image") image.setAttribute("class", "pixels");
        layer.group.append(image);
        details.add(key);
      }
      for (const [key, value] of Object.entries({ x, y, width: w, height: h })) detail.setAttribute(key, value);
      detail.removeAttribute("hidden");
      goTo([x, y, w, h], 2.6);
      svg.scrollIntoView({ block: "nearest" });
      svg.focus({ preventScroll: true });
      by("told").textContent = `The map shows place ${index + 1}.`;
    });
  }

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details").filter((d) => !d.open);
    closed.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));
  show();
})();
