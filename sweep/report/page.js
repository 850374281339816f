// The page can be read without this: it sorts tables and opens the cell that a link leads to.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const falls = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const order = row => row.cells[column].dataset.order;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        if (order(a) === "" || order(b) === "") return (order(a) === "") - (order(b) === "");
        const byText = order(a).localeCompare(order(b), "en", {numeric: true});
        const difference = isNaN(order(a)) || isNaN(order(b)) ? byText : order(a) - order(b);
        return falls ? -difference : difference;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", open);
if (location.hash) open();
