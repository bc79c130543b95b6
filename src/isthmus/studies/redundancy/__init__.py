"""Redundancy counted, the objective's uncertainty measured, and each remedy tried and priced."""
