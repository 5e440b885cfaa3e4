"""The task in headrace."""

import ledger

from headrace.work import App

app = App()


@app.task(name="note")
def note(number: int) -> None:
    ledger.note(number)


def send(numbers: range) -> None:
    note.send_many((number,) for number in numbers)
