(function () {
  "use strict";
  // One form filters the rows of one class: each select by the data attribute of its name, the search field by text.
  Array.prototype.forEach.call(document.querySelectorAll("form[data-filter]"), function (form) {
    var kind = form.dataset.filter;
    var rows = Array.prototype.slice.call(document.querySelectorAll("." + kind));
    var groups = Array.prototype.slice.call(document.querySelectorAll('.group[data-of="' + kind + '"]'));
    var selects = Array.prototype.slice.call(form.querySelectorAll("select"));
    var count = form.querySelector(".shown");
    function apply(event) {
      var words = form.elements.words.value.trim().toLowerCase();
      var shown = 0;
      rows.forEach(function (row) {
        var fits = selects.every(function (select) {
          return !select.value || row.dataset[select.name] === select.value;
        });
        fits = fits && (!words || row.textContent.toLowerCase().indexOf(words) >= 0);
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      });
      groups.forEach(function (group) {
        var left = group.querySelectorAll("." + kind + ":not([hidden])").length;
        group.hidden = left === 0;
        if (event && left) group.open = true;
      });
      count.textContent = shown + " of " + rows.length + " shown";
    }
    form.addEventListener("input", apply);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.hidden = false;
    apply();
  });
})();
