"""Alembic's entry: runs the registry's migrations."""

from alembic import context

from enxerto.runtime.sql import run_migrations

run_migrations(context.config)
