// Keys of the browser: 1 to 4 rate, 0 takes back, arrows move. They press the buttons that stand on the page, one after
// the other: requests that are under way together may overtake each other, and a rating would meet another film.
(() => {
  const NAMES = { ArrowLeft: "studio-back", ArrowRight: "studio-next", PageUp: "studio-page-back", PageDown: "studio-page-next" };
  const waiting = [];
  let busy = null, turn = "";
  const now = () => document.querySelector("[data-turn]")?.dataset.turn ?? "";
  const next = () => {
    if (busy !== null || !waiting.length) return;
    const button = document.getElementById(waiting.shift());
    if (!button) return next();
    turn = now();
    busy = setTimeout(done, 10000); // an error changes nothing on the page
    button.click();
  };
  const done = () => { clearTimeout(busy); busy = null; next(); };
  new MutationObserver(() => { if (busy !== null && now() !== turn) done(); })
    .observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-turn"] });
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName) || at.isContentEditable) return;
    const name = NAMES[event.key] || (/^[0-4]$/.test(event.key) ? "studio-rate-" + event.key : null);
    const button = name && document.getElementById(name);
    if (!button || button.offsetParent === null) return;
    event.preventDefault();
    waiting.push(name);
    next();
  });
})();
