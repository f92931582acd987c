// Search, filters, theme and print of the report. No library, no network.
(function () {
  function by(id) { return document.getElementById(id); }
  var hosts = [].slice.call(document.querySelectorAll("details.host"));

  function show() {
    var words = by("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    var state = by("state").value, land = by("land").value, count = 0;
    hosts.forEach(function (host) {
      var data = host.dataset;
      var fits = words.every(function (word) { return data.words.indexOf(word) >= 0; }) &&
        (!state || data.state === state) && (!land || data.lands.split(" ").indexOf(land) >= 0);
      host.hidden = !fits;
      if (fits) { count += 1; }
    });
    by("shown").textContent = count === hosts.length ? "" : count + " of " + hosts.length;
  }

  ["search", "state", "land"].forEach(function (id) { by(id).addEventListener("input", show); });
  by("open").addEventListener("click", function () {
    var open = this.textContent === "Open all";
    hosts.forEach(function (host) { if (!host.hidden) { host.open = open; } });
    this.textContent = open ? "Close all" : "Open all";
  });
  by("theme").addEventListener("click", function () {
    var list = document.documentElement.classList;
    var dark = list.contains("dark") ||
      (!list.contains("light") && matchMedia("(prefers-color-scheme:dark)").matches);
    list.toggle("dark", !dark);
    list.toggle("light", dark);
  });
  // On paper every host is open.
  var opened = [];
  addEventListener("beforeprint", function () {
    opened = hosts.filter(function (host) { return !host.open && !host.hidden; });
    opened.forEach(function (host) { host.open = true; });
  });
  addEventListener("afterprint", function () {
    opened.forEach(function (host) { host.open = false; });
  });
  // report.html#press-1 shows that host.
  var asked = decodeURIComponent(location.hash.slice(1));
  if (asked) { by("search").value = asked; }
  show();
})();
