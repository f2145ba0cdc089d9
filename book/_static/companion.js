// Search, filters and sorting for tables of class "filterable". Without JavaScript the tables are complete and static.
// The state is kept in the address, so that a filtered table can be linked: ?q=sam&verdict=supported
(() => {
  "use strict";

  const values = (cell) => (cell.dataset.v ?? cell.textContent).split("|").map((text) => text.trim()).filter(Boolean);
  const key = (head) => head.textContent.trim().toLowerCase().split(" ")[0];

  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function enhance(table) {
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows].map((row) => ({
      row,
      text: `${row.textContent} ${row.cells[0].querySelector("a")?.getAttribute("href") ?? ""}`.toLowerCase(),
      values: heads.map((head, index) => ("filter" in head.dataset ? values(row.cells[index]) : [])),
    }));
    const query = new URLSearchParams(location.search);
    const search = make("input", { type: "search", value: query.get("q") ?? "", placeholder: "words, a name, an id" });
    const shown = make("span", { className: "shown" });
    shown.setAttribute("role", "status");
    const reset = make("button", { type: "button", textContent: "Show all" });
    const selects = heads.flatMap((head, index) => {
      if (!("filter" in head.dataset)) return [];
      const counts = new Map();
      rows.forEach((each) => each.values[index].forEach((value) => counts.set(value, (counts.get(value) ?? 0) + 1)));
      const select = make("select", {}, make("option", { value: "", textContent: "all" }));
      [...counts.keys()].sort().forEach((value) => {
        select.append(make("option", { value, textContent: `${value} (${counts.get(value)})` }));
      });
      select.value = counts.has(query.get(key(head))) ? query.get(key(head)) : "";
      return [{ index, name: key(head), label: head.textContent, select }];
    });

    function update() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((each) => {
        const visible =
          words.every((word) => each.text.includes(word)) &&
          selects.every(({ index, select }) => !select.value || each.values[index].includes(select.value));
        each.row.hidden = !visible;
        count += visible;
      });
      shown.textContent = `${count} of ${rows.length} shown`;
      const state = new URLSearchParams();
      if (search.value) state.set("q", search.value);
      selects.forEach(({ name, select }) => select.value && state.set(name, select.value));
      try {
        history.replaceState(null, "", `${location.pathname}${state.size ? `?${state}` : ""}${location.hash}`);
      } catch {
        // a page opened from a file may not rewrite its address
      }
    }

    function sort(head, index) {
      const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const compare = new Intl.Collator("en", { numeric: true }).compare;
      const textOf = (each) => each.row.cells[index].textContent.trim();
      const sorted = [...rows].sort((a, b) => {
        const [first, second] = [textOf(a), textOf(b)];
        if (!first || !second) return Number(!first) - Number(!second); // empty cells stay at the end
        const [x, y] = [parseFloat(first), parseFloat(second)];
        return sign * (Number.isNaN(x) || Number.isNaN(y) ? compare(first, second) : x - y);
      });
      table.tBodies[0].append(...sorted.map((each) => each.row));
    }

    heads.forEach((head, index) => {
      const button = make("button", { type: "button", textContent: head.textContent, title: "Sort" });
      button.addEventListener("click", () => sort(head, index));
      head.replaceChildren(button);
    });
    search.addEventListener("input", update);
    selects.forEach(({ select }) => select.addEventListener("change", update));
    reset.addEventListener("click", () => {
      search.value = "";
      selects.forEach(({ select }) => (select.value = ""));
      update();
    });
    const labels = selects.map(({ label, select }) => make("label", {}, label, select));
    table.parentElement.before(make("div", { className: "filters" }, make("label", {}, "Search", search), ...labels, reset, shown));
    update();
  }

  document.querySelectorAll("table.filterable").forEach(enhance);
})();
