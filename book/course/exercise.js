// Shows a question and checks its answer.

function ask(el, data) {
  el.classList.add("exercise");
  const question = document.createElement("div");
  question.innerHTML = data.question;
  const form = document.createElement("form");
  const group = `choice${Math.random().toString(36).slice(2)}`;
  const choices = data.choices.map((text, number) => {
    const label = document.createElement("label");
    label.className = "choice";
    const button = document.createElement("input");
    button.type = "radio";
    button.name = group;
    button.value = number;
    const words = document.createElement("div");
    words.innerHTML = text;
    label.append(button, words);
    form.append(label);
    return button;
  });
  const field = document.createElement("input");
  field.type = "text";
  field.inputMode = "text";  // a phone's number pad has no minus sign
  field.setAttribute("aria-label", `your answer ${data.unit}`);
  const check = document.createElement("button");
  check.textContent = "Check";
  const unit = document.createElement("span");
  unit.textContent = data.unit;
  if (!choices.length) form.append(field, unit);
  form.append(check);
  const verdict = document.createElement("div");
  verdict.className = "verdict";
  verdict.setAttribute("aria-live", "polite");
  form.addEventListener("submit", event => {
    event.preventDefault();
    const chosen = choices.find(one => one.checked);
    const text = choices.length ? (chosen ? chosen.value : "")
      : field.value.trim().replace(",", ".").replace("−", "-");
    const given = text === "" ? NaN : Number(text);
    if (!Number.isFinite(given)) {
      verdict.className = "verdict";
      verdict.textContent = choices.length ? "Choose one." : "Write a number, such as 0.25 or 3e-4.";
      return;
    }
    const right = choices.length ? given === data.answer
      : Math.abs(given - data.answer) <= data.tolerance;
    verdict.className = right ? "verdict right" : "verdict wrong";
    verdict.innerHTML = (right ? "<strong>Right.</strong> " : "<strong>Not yet.</strong> ")
      + (right ? data.explanation : data.hint);
  });
  el.append(question, form, verdict);
}

function render({model, el}) {
  ask(el, model.get("data"));
}

export default {render};
