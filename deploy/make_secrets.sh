#!/usr/bin/env bash
# Write the secrets that compose.yaml mounts into deploy/secrets. What is there stays as it is.
# The folder is closed to other users of this machine; the files are readable, because a container's user is another one.
set -euo pipefail
cd "$(dirname "$0")/secrets"
chmod 700 .
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
for name in postgres_password ray_token replica_secret grafana_password; do
    [ -s "$name" ] || random > "$name"
done
for service in registry training inference; do
    printf 'postgresql+asyncpg://enxerto:%s@postgres:5432/%s' "$(cat postgres_password)" "$service" \
        > "enxerto_${service}_database_url"
done
chmod 644 ./*
