"""The registry service: models, their immutable versions, aliases and bytes."""
