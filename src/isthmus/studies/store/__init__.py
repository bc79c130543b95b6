"""What was trained and measured, kept: content-addressed folders, rows, an index that can be rebuilt."""
