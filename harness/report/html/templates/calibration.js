const said = document.getElementById("said");
addEventListener("click", (event) => {
  for (const mark of document.querySelectorAll(".chosen")) mark.classList.remove("chosen");
  const mark = event.target.closest(".m");
  said.hidden = !mark;
  if (!mark) return;
  mark.classList.add("chosen");
  said.textContent = mark.title;
});
