"""Offline checks of what is deployed: each module has functions that return what is wrong, one line each."""
