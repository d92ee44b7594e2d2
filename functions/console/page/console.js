// Keeps the part of the page that moves up to date. Everything works without it.
(() => {
  const moving = document.querySelector("[data-live]");
  const pause = document.getElementById("pause");
  if (!moving || !pause) return;
  let source = null;

  const swap = (html) => {
    // Not under somebody's fingers: what has the focus, or is marked, stays.
    const marked = document.getSelection();
    if (moving.contains(document.activeElement) || (marked && !marked.isCollapsed)) return;
    const scrolled = [...moving.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    moving.innerHTML = html;
    moving.querySelectorAll(".scroll").forEach((one, i) => { one.scrollLeft = scrolled[i] || 0; });
  };

  const follow = () => {
    const wanted = !document.hidden && pause.getAttribute("aria-pressed") !== "true";
    if (wanted && !source) {
      source = new EventSource(moving.dataset.live);
      source.addEventListener("now", (event) => swap(event.data));
    } else if (!wanted && source) {
      source.close();
      source = null;
    }
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", String(paused));
    follow();
  });
  document.addEventListener("visibilitychange", follow);
  follow();
})();
