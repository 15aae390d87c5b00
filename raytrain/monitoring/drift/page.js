const wanted = document.getElementById("wanted");
if (wanted) {
  wanted.addEventListener("input", () => {
    const word = wanted.value.trim().toLowerCase();
    for (const row of document.querySelectorAll("tbody tr[data-feature]"))
      row.hidden = !row.dataset.feature.toLowerCase().includes(word);
  });
}
