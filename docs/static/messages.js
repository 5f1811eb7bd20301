// Show the messages of the page that fit the text in the box: all their parts between "..." occur in it, in order.
// If none does, show those that share most of its words.
const box = document.getElementById("message");
const entries = [...document.querySelectorAll(".bd-article li")].map((item) => {
  const text = item.textContent.replace(/^\w+: /, "").replace(/\s+/g, " ").trim();
  return { item, parts: text.split("...").filter(Boolean), words: new Set(text.match(/[\w.]{3,}/g)) };
});

function fits(text, parts) {
  let at = 0;
  return parts.every((part) => {
    const found = text.indexOf(part, at);
    at = found + part.length;
    return found >= 0;
  });
}

function show() {
  const text = box.value.replace(/\s+/g, " ").trim();
  const words = new Set(text.match(/[\w.]{3,}/g));
  const shared = (entry) => [...words].filter((word) => entry.words.has(word)).length;
  let shown = text ? entries.filter((entry) => fits(text, entry.parts)) : entries;
  if (!shown.length) {
    const most = Math.max(1, ...entries.map(shared));
    shown = entries.filter((entry) => shared(entry) >= 0.8 * most);
  }
  const items = new Set(shown.map((entry) => entry.item));
  entries.forEach((entry) => (entry.item.hidden = !items.has(entry.item)));
  document.querySelectorAll(".bd-article section section").forEach((section) => {
    section.hidden = ![...section.querySelectorAll("li")].some((item) => !item.hidden);
  });
}
box.addEventListener("input", show);
