"""English, one file for each subject."""
