"""Alembic's entry point."""

from alembic import context

from enxerto.runtime.sql import run_migrations

run_migrations(context.config)
