"""Which factor does what: a design in a file, its cells trained and measured by an engine, and the effects."""
