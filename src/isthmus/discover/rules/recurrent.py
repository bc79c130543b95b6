"""Recurrent cells: all gates of a unit move together, and the state carries the unit through time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.discover.labels import Labels, positional, reshaped
from isthmus.discover.ledger import Ledger
from isthmus.discover.rules.contraction import linear
from isthmus.discover.rules.joining import cat, stack
from isthmus.discover.rules.movement import select as selected
from isthmus.discover.rules.registry import rule


def _cell(ledger: Ledger, value: Labels, state: Labels, weights: Sequence[Labels], gates: int) -> Labels:
    """One step: gates from input and state, each gate's unit u tied to state's unit u."""
    into, back = weights[0], weights[1]
    biases = list(weights[2:])
    made = linear(ledger, value, into, biases[0] if biases else None)
    kept = linear(ledger, state, back, biases[1] if len(biases) > 1 else None)
    parts = []
    for source in (made, kept):
        size = source.shape[-1] // gates
        split = reshaped(source, (*source.shape[:-1], gates, size))
        for gate in range(gates):
            parts.append(selected(ledger, split, split.rank - 2, gate))
    return ledger.meet(*parts)


def _layer(
    ledger: Ledger, value: Labels, states: Sequence[Labels], weights: Sequence[Labels], gates: int
) -> tuple[Labels, Labels]:
    """A layer over time (time and batch are the first two axes): the units of the sequence and of the last state."""
    width = 4 if gates == 4 else gates
    core = list(weights[:4]) if len(weights) >= 4 else list(weights[:2])
    projection = weights[-1] if len(weights) in (3, 5) else None
    state = states[0]
    memory = states[1:]
    step = _cell(ledger, value, state, core, width)
    for kept in memory:
        step = ledger.meet(step, kept)
    carried = step
    output = linear(ledger, carried, projection) if projection is not None else carried
    # The state that comes back is the state that went in: run the cell once more on its own output.
    again = _cell(ledger, value, output, core, width)
    carried = ledger.meet(carried, again)
    if projection is not None:  # noqa: SIM108
        output = ledger.meet(output, linear(ledger, carried, projection))
    else:
        output = carried
    if state.layers:
        output = ledger.meet(output, state)
    return output, carried


def _run(  # noqa: PLR0917
    ledger: Ledger,
    value: Labels,
    states: Sequence[Labels],
    weights: Sequence[Labels],
    has_biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    gates: int,
) -> tuple[Labels, list[Labels]]:
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    time = 1 if batch_first else 0
    if value.rank == 2:
        time = 0
    finals: list[list[Labels]] = [[] for _ in states]
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            own = [_state(ledger, state, number, value, time) for state in states]
            out, memory = _layer(ledger, value, own, weights[number * each : (number + 1) * each], gates)
            out = ledger.order(out, time) if value.shape[time] > 1 else out
            outputs.append(out)
            for kind, last in enumerate((out, memory)[: len(states)]):
                finals[kind].append(ledger.reduce(last, [time]))
        value = outputs[0] if directions == 1 else cat(ledger, outputs, outputs[0].rank - 1)
    return value, [stack(ledger, final, 0) for final in finals]


def _state(ledger: Ledger, state: Labels, number: int, value: Labels, time: int) -> Labels:
    """The initial state of one layer, laid out like a step of the sequence."""
    one = selected(ledger, state, 0, number)
    shape = list(one.shape)
    shape.insert(time, 1)
    return reshaped(one, shape)


@rule("lstm")
def lstm(ledger: Ledger, value: Labels, states: Any, *arguments: Any) -> Any:
    """(output, last hidden, last cell)."""
    if isinstance(arguments[0], (list, tuple)) and isinstance(states, Labels):
        return _packed(ledger, [value, states], arguments)
    weights, has_biases, layers, _, _, bidirectional, batch_first = arguments[:7]
    output, finals = _run(ledger, value, states, weights, has_biases, layers, bidirectional, batch_first, 4)
    return (output, *finals)


@rule("gru")
def gru(ledger: Ledger, value: Labels, state: Labels, *arguments: Any) -> Any:
    """(output, last hidden)."""
    if not isinstance(arguments[0], (list, tuple)):
        return _packed(ledger, [value, state], arguments)
    weights, has_biases, layers, _, _, bidirectional, batch_first = arguments[:7]
    output, finals = _run(ledger, value, [state], weights, has_biases, layers, bidirectional, batch_first, 3)
    return (output, *finals)


@rule("rnn_tanh", "rnn_relu")
def rnn(ledger: Ledger, value: Labels, state: Labels, *arguments: Any) -> Any:
    """(output, last hidden)."""
    if not isinstance(arguments[0], (list, tuple)):
        return _packed(ledger, [value, state], arguments)
    weights, has_biases, layers, _, _, bidirectional, batch_first = arguments[:7]
    output, finals = _run(ledger, value, [state], weights, has_biases, layers, bidirectional, batch_first, 1)
    return (output, *finals)


def _packed(ledger: Ledger, values: Sequence[Any], arguments: Sequence[Any]) -> Any:
    flat = [*values]
    for argument in arguments:
        flat += argument if isinstance(argument, (list, tuple)) else [argument]
    labels = [value for value in flat if isinstance(value, Labels)]
    made = ledger.opaque(labels, ledger.shapes[0], "runs over packed sequences")
    return (made, *[Labels(tuple(s), (positional(s),)) for s in ledger.shapes[1:]])


@rule("lstm_cell")
def lstm_cell(ledger: Ledger, value: Labels, states: Sequence[Labels], *weights: Any) -> Any:
    """(hidden, cell) after one step."""
    given = [w for w in weights if w is not None]
    step = ledger.meet(_cell(ledger, value, states[0], given, 4), states[1])
    return (step, step)


@rule("gru_cell")
def gru_cell(ledger: Ledger, value: Labels, state: Labels, *weights: Any) -> Labels:
    """The hidden state after one step."""
    return ledger.meet(_cell(ledger, value, state, [w for w in weights if w is not None], 3), state)


@rule("rnn_tanh_cell", "rnn_relu_cell")
def rnn_cell(ledger: Ledger, value: Labels, state: Labels, *weights: Any) -> Labels:
    """The hidden state after one step."""
    return _cell(ledger, value, state, [w for w in weights if w is not None], 1)
