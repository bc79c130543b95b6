"""Japanese, one file for each subject."""
