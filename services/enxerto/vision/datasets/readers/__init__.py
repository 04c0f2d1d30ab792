"""One module for each format of labelled pictures."""
