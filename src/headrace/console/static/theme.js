// Before anything is drawn: the theme that was chosen here, so that no page flashes in the other one.
(() => {
  const chosen = localStorage.getItem("headrace-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
