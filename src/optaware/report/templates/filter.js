(function () {
  "use strict";
  var form = document.getElementById("filter");
  if (!form) return;
  var rows = Array.prototype.slice.call(document.querySelectorAll(".example"));
  var count = document.getElementById("shown");
  var groups = Array.prototype.slice.call(document.querySelectorAll(".group"));
  function apply(event) {
    var words = form.elements.words.value.trim().toLowerCase();
    var shown = 0;
    rows.forEach(function (row) {
      var fits = ["outcome", "variant"].every(function (name) {
        var wanted = form.elements[name].value;
        return !wanted || row.dataset[name] === wanted;
      });
      fits = fits && (!words || row.textContent.toLowerCase().indexOf(words) >= 0);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    groups.forEach(function (group) {
      var left = group.querySelectorAll(".example:not([hidden])").length;
      group.hidden = left === 0;
      if (event && left) group.open = true;
    });
    count.textContent = shown + " of " + rows.length + " shown";
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.hidden = false;
  apply();
})();
