"""The shell: one file for each command, which parses, calls and writes; no logic of its own."""
